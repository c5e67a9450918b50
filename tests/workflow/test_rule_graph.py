"""The drawing of the workflow in docs/numbers.md, against the rules and what Snakemake says depends on what."""

import re

from checkout import ROOT

SOLID, DOTTED = "-->", "-.->"


def drawn(arrow):
    """The arrows of a kind, each as the pair of the rules it joins."""
    (text,) = re.findall(r"```mermaid\n(.*?)```", (ROOT / "docs" / "numbers.md").read_text(), re.DOTALL)
    return set(re.findall(rf"^    (\w+)(?:\[.*?\])? {re.escape(arrow)} (\w+)", text, re.MULTILINE))


def reachable(arrows):
    """All pairs of which the first leads to the second."""
    found = set(arrows)
    while more := {(one, last) for one, middle in found for first, last in found if first == middle} - found:
        found |= more
    return found


def test_every_rule_is_drawn():
    rules = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    names = {name for arrow in drawn(SOLID) | drawn(DOTTED) for name in arrow}
    assert names == set(re.findall(r"^rule (\w+):", rules, re.MULTILINE))


def test_arrows_lead_from_each_rule_to_all_that_need_it(smoke):
    """Of the smoke study, which scores in other ways, computes on the CPU and has no code of a user's own."""
    graph = smoke.snakemake("--rulegraph", "mermaid-js", "--forceall")
    assert graph.returncode == 0, graph.stderr
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]", graph.stdout, re.MULTILINE))
    needed = {
        (names[one], names[two]) for one, two in re.findall(r"^\s*(id\d+) --> (id\d+)", graph.stdout, re.MULTILINE)
    }
    needed = {arrow for arrow in needed if "all" not in arrow}
    arrows = {arrow for arrow in drawn(SOLID) | drawn(DOTTED) if not {"tryout", "decode"} & {*arrow}}
    assert ("train", "fit") in needed
    assert reachable(arrows) == reachable(needed)
