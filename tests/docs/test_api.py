"""docs/api.md says of every route and problem what the services say of them."""

import pytest

from tests.docs.api_tables import DOCUMENT, put, tables


async def test_the_tables_are_those_of_the_services() -> None:
    text = DOCUMENT.read_text()
    made = text
    for heading, table in tables().items():
        made = put(made, heading, table)
    assert text == made, "python -m tests.docs.api_tables mends it"


def test_a_table_that_has_no_place() -> None:
    with pytest.raises(AssertionError, match="no table under the heading there"):
        put("## here\n\n| a |\n", "there", "| b |\n")
    assert put("## here\n\n| a |\n\nend\n", "here", "| b |\n") == "## here\n\n| b |\n\nend\n"
