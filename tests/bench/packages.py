"""The drawing of the packages in the docs, made from the imports that tests/test_imports.py checks.

    python -m tests.bench.packages              # writes docs/images/packages.svg

A box is a package or module, a row a line of the order; arrows point at what is imported, and all of them point down.
An arrow that follows from two others is left out.
"""

from pathlib import Path

from tests.test_imports import ORDER, arrows, room_of

FILE = Path(__file__).parents[2] / "docs" / "images" / "packages.svg"
WIDTH, ROW, HEIGHT = 980, 66, 30            # of the picture, from row to row, of a box
COLOURS = {"core": "#dbeafe", "select": "#dbeafe", "training": "#dcfce7", "hosts": "#fef3c7", "cli": "#fef3c7"}
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" \
font-size="13">
<title>Packages of S4S: every arrow points down, at what is imported</title>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">\
<path d="M0 0 8 4 0 8z" fill="#64748b"/></marker></defs>
<style>.arrow{{fill:none;stroke:#94a3b8;marker-end:url(#tip)}}</style>
<rect width="100%" height="100%" fill="white"/>"""


def imports() -> dict[str, set[str]]:
    """room -> the rooms it imports directly, but for those that a chain of imports reaches as well."""
    direct: dict[str, set[str]] = {}
    for _, _, one, other in arrows():
        room, reached = room_of(one)[1], room_of(other)[1]
        if room != reached and reached not in ("s4s_nodes", "training") and room:
            direct.setdefault(room, set()).add(reached)

    def below(room: str) -> set[str]:
        return {further for near in direct.get(room, ()) for further in {near, *below(near)}}
    return {room: near - {further for other in near for further in below(other)} for room, near in direct.items()}


def drawing() -> str:
    """The drawing as SVG."""
    known = imports()
    used = set(known) | {room for near in known.values() for room in near}
    rows = [[room for room in line.split(" ") if room in used] for line in reversed(ORDER)]
    rows = [row for row in rows if row]
    places = {room: (WIDTH * (k + 0.5) / len(row), 20 + ROW * i) for i, row in enumerate(rows)
              for k, room in enumerate(row)}
    lines = [HEAD.format(width=WIDTH, height=ROW * len(rows))]
    for room, near in sorted(known.items()):
        (x, y) = places[room]
        for other in sorted(near):
            to, end = places[other]
            assert end > y, f"{room} imports {other}, which stands above it"
            curve = f"{x:.0f} {y + ROW:.0f} {to:.0f} {end - ROW / 2:.0f} {to:.0f} {end:.0f}"
            lines.append(f'<path d="M{x:.0f} {y + HEIGHT:.0f}C{curve}" class="arrow"/>')
    for room, (x, y) in places.items():
        name, wide = _shown(room), 8 * len(_shown(room)) + 16
        lines.append(f'<rect x="{x - wide / 2:.0f}" y="{y:.0f}" width="{wide}" height="{HEIGHT}" rx="6" '
                     f'fill="{_colour(room)}" stroke="#64748b"/><text x="{x:.0f}" y="{y + 20:.0f}" '
                     f'text-anchor="middle">{name}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _shown(room: str) -> str:
    return room.removeprefix("s4s_nodes.").removeprefix("training.")


def _colour(room: str) -> str:
    return next((colour for part, colour in COLOURS.items() if part in room.split(".")), "#f1f5f9")


if __name__ == "__main__":
    FILE.write_text(drawing(), encoding="utf-8")
    print(f"wrote {FILE}")
