import math

import pytest

from nnunet_attenscribble.common.text import (
    counted,
    escape_markdown,
    format_markdown,
    format_mean_sd,
    format_number,
    format_plain,
    list_some,
    read_table,
    tell_error,
)


def test_cells():
    assert format_number(0.12345, 3) == "0.123"
    assert format_number(math.nan, 3) == "n/a"
    assert format_number(math.inf, 1) == "inf"
    assert format_mean_sd(1.0, 0.25, 2) == "1.00 ± 0.25"
    assert format_mean_sd(1.0, math.nan, 2) == "1.00"
    assert format_mean_sd(math.nan, math.nan, 2) == "n/a"
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]
    assert [counted(number, "case", "has") for number in (1, 2)] == ["1 case has", "2 cases have"]
    assert list_some(list("abcde")) == "a, b, c, d, e"
    assert list_some(list("abcdef")) == "a, b, c, d, e, ..."


def test_what_other_code_says_ends_with_a_word():
    assert tell_error(ValueError("one\n  two three"), 12) == "one two ..."
    assert tell_error(ValueError("one\n  two")) == "one two"
    assert tell_error(ValueError()) == "ValueError"


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Method <new>", r"Method \<new>"),
        ("Masked *CRF* [1](x)", r"Masked \*CRF\* \[1\](x)"),
        ("_u_ a_b __x__", r"\_u\_ a_b \_\_x\_\_"),
        (r"a`b` \ |", r"a\`b\` \\ \|"),
        ("+ CRF", r"\+ CRF"),
        *((own, own) for own in ("<0.001, 0.03 (worse)", "+0.1 [-0.1, n/a]", "[95 % interval]", "seed_0/fold_0")),
        ("run `attenscribble next`", "run `attenscribble next`"),
    ],
)
def test_names_are_no_markup(text, shown):
    assert escape_markdown(text) == shown
