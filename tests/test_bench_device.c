/* test_bench_device.c - which data sheet is that of a device, by the name that its driver gives it. */
/* rooms: bench */
#include "test.h"
#include "bench/machine.h"
#include "bench/step.h"
#include "plan/rates.h"
#include "scratch.h"

#include <string.h>

/* Names as nvidia-smi says them, and the line of the table that they are; NULL: another product. */
static const char *const names[][2] = {{"NVIDIA H100 80GB HBM3", "h100"},
                                       {"H100", "h100"},
                                       {"NVIDIA H200", "h200"},
                                       {"nvidia h200", "h200"},
                                       {"NVIDIA B200", "b200"},
                                       {"NVIDIA A100-SXM4-80GB", "a100"},
                                       {"NVIDIA A100-SXM4-40GB", "a100-40gb"},
                                       {"NVIDIA L40S", "l40s"},
                                       {"NVIDIA GeForce RTX 4090", "rtx4090"},
                                       {"cpu", "cpu"},
                                       {"NVIDIA GH200 480GB", NULL},
                                       {"NVIDIA GB200", NULL},
                                       {"NVIDIA H100 PCIe", NULL},
                                       {"NVIDIA H100 NVL", NULL},
                                       {"NVIDIA H200 NVL", NULL},
                                       {"NVIDIA H100 80GB HBM3 MIG 1g.10gb", NULL},
                                       {"NVIDIA H1000", NULL},
                                       {"NVIDIA A100 80GB PCIe", NULL},
                                       {"NVIDIA A100-PCIE-40GB", NULL},
                                       {"NVIDIA GeForce RTX 4090 D", NULL},
                                       {"NVIDIA GeForce RTX 4090 Laptop GPU", NULL},
                                       {"cpu 2", NULL},
                                       {"", NULL}};
enum { NAMES = sizeof names / sizeof names[0] };

static void a_variant_is_another_product(void **state)
{
    (void)state;
    int n;
    const gpu_facts *gpu = gpu_table(&n);
    for (int i = 0; i < NAMES; i++) {
        for (int k = 0; k < n; k++) {
            const bool want = names[i][1] != NULL && strcmp(names[i][1], gpu[k].name) == 0;
            if (gpu_is(&gpu[k], names[i][0]) != want)
                fail_msg("\"%s\" is %s%s", names[i][0], want ? "not " : "", gpu[k].name);
        }
    }
}

/* A plan takes a device's rates for that device alone. */
static void rates_are_of_the_device(void **state)
{
    (void)state;
    char text[300];
    int n;
    const gpu_facts *gpu = gpu_table(&n);
    for (int i = 0; i < NAMES; i++) {
        snprintf(text, sizeof text,
                 "{\"format\": \"cudpo calibration 1\", \"devices\": {\"%s\": {\"head_gbps\": 7}}}",
                 names[i][0]);
        const char *path = scratch_text("rates.json", text);
        for (int k = 0; k < n; k++) {
            device_rates r = {.head = 1};
            bool found;
            CHECK_OK(rates_load(&r, &found, path, &gpu[k]));
            assert_true(found == gpu_is(&gpu[k], names[i][0]));
            assert_true(r.head == (found ? 7e9 : 1));
        }
    }
}

static void a_device_is_called_by_its_name(void **state)
{
    (void)state;
    static const char *const said[][2] = {{"cuda:0, NVIDIA H100 PCIe, 85.0 GB", "NVIDIA H100 PCIe"},
                                          {"cuda:3, NVIDIA H200", "NVIDIA H200"},
                                          {"something", "cuda"}};
    char name[64];
    backend be = {.name = "cuda", .on_device = true};
    for (int i = 0; i < 3; i++) {
        be.description = said[i][0];
        bench_device_name(name, sizeof name, &be);
        assert_string_equal(name, said[i][1]);
    }
    bench_device_name(name, sizeof name, backend_cpu());
    assert_string_equal(name, "cpu");
}

/* A share of the data sheet where there is one; of another GPU, that there is none. */
static void a_peak_that_is_not_known(void **state)
{
    (void)state;
    static const char unknown[] = "what the data sheet says of this device is not known, 10.0 %";
    cudpo_config c;
    CHECK_OK(cudpo_config_create(&c));
    part_times once = {.part = {1.0}};
    double host = 0;
    step_result r = {.config = &c, .name = "m", .backend = "cuda", .steps = 1, .times = &once};
    r.host = &host;
    r.ranks.place.size = 1;
    r.total = 1, r.useful = 1e12, r.product = 1e13;
    for (int known = 0; known < 3; known++) { /* 2: a CPU has none */
        buffer b = {0};
        r.peak = known == 1 ? 2e13 : 0;
        if (known == 2) snprintf(r.backend, sizeof r.backend, "cpu");
        CHECK_OK(step_table(&b, &r));
        assert_true((strstr(b.data, unknown) != NULL) == (known == 0));
        assert_true((strstr(b.data, "5.0 % of the 20 of the data sheet") != NULL) == (known == 1));
        buffer_free(&b);
    }
    cudpo_config_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_variant_is_another_product),
        cmocka_unit_test(rates_are_of_the_device),
        cmocka_unit_test(a_device_is_called_by_its_name),
        cmocka_unit_test(a_peak_that_is_not_known),
    };
    return cmocka_run_group_tests(tests, NULL, scratch_remove);
}
