"""The table that ``cosmos run`` prints."""

from cosmos_operator.local_summary import format_table


def test_table_is_padded_and_tells_absent_values():
    rows = [
        {"item": "before", "clips": 8, "psnr": 17.25},
        {"item": "after", "clips": 16, "psnr": None, "follows": 0.98},
    ]

    assert format_table(rows) == [
        "item    clips   psnr  follows",
        "------  -----  -----  -------",
        "before      8  17.25        -",
        "after      16      -     0.98",
    ]
