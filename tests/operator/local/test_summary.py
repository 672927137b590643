"""The table that ``cosmos run`` prints."""

from cosmos_operator.local.summary import format_table


def test_table_is_padded_under_its_header():
    rows = [["item", "clips", "follows"], ["before", "8", "22.5 %"], ["after", "16", "98 %"]]

    assert format_table(rows) == [
        "item    clips  follows",
        "------  -----  -------",
        "before      8   22.5 %",
        "after      16     98 %",
    ]
