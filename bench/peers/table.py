"""The peers' table, one Markdown row at a time."""

COLUMNS = (
    ("model", 13),
    ("tokens of a pair", 16),
    ("trainer", 17),
    ("reference", 11),
    ("pairs/s", 9),
    ("ms/step", 9),
    ("peak MB", 9),
    ("cudpo is faster", 15),
    ("cudpo's memory", 14),
    ("loss apart", 10),
)


def where(document):
    machine = document["machine"]
    gpu = machine.get("gpu", {}).get("name")
    return gpu or f"{document['threads']} threads of {machine['processor']}"


def number(value):
    """Three digits, and no exponent."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:#.3g}"


def head():
    titles = " | ".join(f"{title:{width}}" for title, width in COLUMNS)
    rules = " | ".join("-" * width for _, width in COLUMNS)
    return [f"| {titles} |", f"| {rules} |"]


def row_cells(row):
    cells = [row["shape"], row["lengths"], row["peer"], row["reference"]]
    if "absent" in row:
        return cells + ["absent: " + row["absent"]] + [""] * 5
    cells += [number(row["pairs_per_s"]), number(row["ms"]), number(row["peak_mb"])]
    cells.append(f"{row['cudpo_speedup']:.2f} x" if "cudpo_speedup" in row else "")
    cells.append(f"{100 * row['cudpo_memory_share']:.0f} %" if "cudpo_memory_share" in row else "")
    apart = f"{row['loss_difference']:.0e}" if "loss_difference" in row else ""
    cells.append(apart if row.get("agrees", True) else f"{apart}, TOO FAR")
    return cells


def line(row):
    return "| " + " | ".join(f"{cell:{width}}" for cell, (_, width) in zip(row_cells(row), COLUMNS)) + " |"


def print_head():
    print("\n" + "\n".join(head()), flush=True)


def print_row(row):
    print(line(row), flush=True)


def markdown(document):
    """All rows of a document."""
    return head() + [line(row) for row in document["rows"]]
