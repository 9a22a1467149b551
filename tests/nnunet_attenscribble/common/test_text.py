import math

from nnunet_attenscribble.common.text import (
    format_markdown,
    format_mean_sd,
    format_number,
    format_plain,
    list_some,
    read_table,
)


def test_cells():
    assert format_number(0.12345, 3) == "0.123"
    assert format_number(math.nan, 3) == "n/a"
    assert format_number(math.inf, 1) == "inf"
    assert format_mean_sd(1.0, 0.25, 2) == "1.00 ± 0.25"
    assert format_mean_sd(1.0, math.nan, 2) == "1.00"
    assert format_mean_sd(math.nan, math.nan, 2) == "n/a"
    assert list_some(list("abcde")) == "a, b, c, d, e"
    assert list_some(list("abcdef")) == "a, b, c, d, e, ..."


def test_tables():
    rows = [["RV", "0.9"], ["a|b", "10.0"]]
    assert format_markdown(["label", "Dice"], rows).splitlines() == [
        "| label | Dice |",
        "| --- | ---: |",
        "| RV | 0.9 |",
        "| a\\|b | 10.0 |",
    ]
    assert format_plain(["label", "Dice"], rows).splitlines() == ["label  Dice", "RV      0.9", "a|b    10.0"]


def test_emptied_rows_and_columns_of_a_spreadsheet_are_passed_over(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text("case,,classes, \na,,RV;LV,\n,,,\nb,,,\nc,,RV,,LV\nd\n", encoding="utf-8-sig")
    columns, rows = read_table(file)
    assert columns == ["case", "classes"]
    assert [(line, row["case"], row["classes"]) for line, row in rows] == [
        *((2, "a", "RV;LV"), (4, "b", ""), (5, "c", "RV"), (6, "d", None))
    ]
    assert [line for line, row in rows if row.get(None)] == [5]  # has more fields than columns
    file.write_text("case,,\na,,x\n")
    assert read_table(file)[0] == ["case", ""]
