"""Pages of the docs whose tables a bench writes."""


def placed(text: str, marks: tuple[str, str], table: str) -> str:
    """The page with the table between its marks."""
    before, rest = text.split(marks[0])
    return f"{before}{marks[0]}\n\n{table}\n{marks[1]}{rest.split(marks[1])[1]}"
