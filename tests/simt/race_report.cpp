/* race_report.cpp - what the race checker says: each pair of places in the source once, ten pairs a launch. */
#include "race_memory.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <unistd.h>
#include <utility>

namespace simt
{

constexpr Place SITE = 1u << 31; /* marks numbers of sites */
constexpr int REPORTS_SHOWN = 10;

static const char *kernel_name;
static std::set<std::pair<Place, Place>> reported;
static int reports;

/* Blocks of the launch, each with its first phase, in the order in which they ran. */
static std::vector<std::pair<uint32_t, unsigned>> blocks;
static std::vector<Site> sites;

Place race_place(Site site)
{
    static struct {
        Site site;
        Place place;
    } recent[64]; /* a kernel has few sites, each used many times */
    auto &r = recent[((uintptr_t)site.file / 16 + (unsigned)site.line) % 64];
    if (r.site.file == site.file && r.site.line == site.line) return r.place;
    size_t i = 0;
    while (i < sites.size() && !(sites[i].file == site.file && sites[i].line == site.line)) {
        i++;
    }
    if (i == sites.size()) sites.push_back(site);
    r = {site, SITE | (Place)i};
    return r.place;
}

static void print_place(Place place)
{
    char line[600];
    if (place & SITE) {
        const Site site = sites[place & ~SITE];
        snprintf(line, sizeof line, "%s:%d", site.file, site.line);
    } else {
        /* A return address: the call is before it. */
        source_line(program_base() + place - 1, line, sizeof line);
    }
    fprintf(stderr, "%s\n", line);
}

static unsigned block_of(uint32_t phase)
{
    const auto after = std::upper_bound(blocks.begin(), blocks.end(), std::make_pair(phase, ~0u));
    return after == blocks.begin() ? 0 : (after - 1)->second;
}

static void print_access(const char *did, unsigned block, unsigned thread, Place place)
{
    fprintf(stderr, "  %s by block %u thread %u at ", did, block, thread % MAX_THREADS);
    print_place(place);
}

void race_report(const RaceReport &r)
{
    if (!reported.insert({r.place, r.earlier_phase != 0 ? r.earlier_place : 0}).second) return;
    if (++reports > REPORTS_SHOWN) return;
    char where[100];
    if (race_is_shared(r.address))
        snprintf(where, sizeof where, "shared memory");
    else
        describe_device_address(r.address, where, sizeof where);
    fprintf(stderr, "SIMT RACE: kernel %s, %s: %s\n", kernel_name, where, r.what);
    print_access(r.did, blocks.back().second, r.thread, r.place);
    if (r.earlier_phase != 0)
        print_access("earlier access", block_of(r.earlier_phase), r.earlier_thread,
                     r.earlier_place);
}

void race_reports_begin(const char *kernel)
{
    kernel_name = kernel;
    reports = 0;
    reported.clear();
    blocks.clear();
}

void race_reports_block(unsigned block, uint32_t first_phase)
{
    blocks.push_back({first_phase, block});
}

void race_reports_end()
{
    if (reports == 0) return;
    fprintf(stderr, "SIMT RACE: %d pairs of places in kernel %s\n", reports, kernel_name);
    if (getenv("SIMT_RACE_WARN") != nullptr) return;
    fflush(nullptr);
    _exit(EXIT_RACES);
}

} // namespace simt
