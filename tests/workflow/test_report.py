"""The report in a real browser: sorted, filtered and unfolded by its script, at a phone's width, without an error."""

import html
import json
import re
import subprocess
import zipfile

import pytest
from checkout import node_module, program


@pytest.fixture
def browse(tmp_path):
    """The document that a browser makes of a page, and the messages on its console."""
    browser = program("chromium", "chromium-browser", "google-chrome")

    def dump(path, fragment="", *more):
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        options = ["--headless", "--no-sandbox", "--enable-logging=stderr", profile, *more]
        command = [browser, *options, "--dump-dom", f"{path.as_uri()}{fragment}"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return ended.stdout, [line for line in ended.stderr.splitlines() if "CONSOLE" in line]

    return dump


@pytest.fixture(scope="module")
def report(smoke):
    return smoke.results / "smoke" / "report.html"


def acted(report, path, script):
    """A copy of the report in which a script of ours acts as a reader would."""
    path.write_text(report.read_text().replace("</body>", f"<script>{script}</script></body>"))
    return path


def rows(document):
    """The rows of Table 1 as they stand: the label, and whether it is shown."""
    table = re.search(r'<table id="table1">.*?</table>', document, re.DOTALL)[0]
    found = re.findall(r"<tr (data-family[^>]*)>\s*<th scope=\"row\">(.*?)</th>", table)
    return [(label, "hidden" not in attributes) for attributes, label in found]


def sorting(document):
    return re.findall(r'<th [^>]*aria-sort="(\w+)"[^>]*><button type="button">(.*?)</button>', document)


def test_snakemakes_own_report_shows_the_page_figures_and_tables_with_captions(planned, tmp_path):
    made = planned.snakemake("--report", str(tmp_path / "report.zip"))
    assert made.returncode == 0, made.stderr
    with zipfile.ZipFile(tmp_path / "report.zip") as pages:
        names = {name.rsplit("/")[-1] for name in pages.namelist()}
        text = "".join(pages.read(name).decode() for name in pages.namelist() if name.endswith((".html", ".js")))
    assert names >= {"report.html", "samples_digits_mini.png", "distances_digits_mini.png", "table1_digits_mini.csv"}
    for caption in (planned.path / "workflow" / "report").iterdir():
        assert " ".join(caption.read_text().split()[:4]) in text, caption.name
    assert all(f'"{category}"' in text for category in ("Report", "Figures", "Tables"))


def test_the_address_sorts_filters_and_unfolds(browse, report):
    document, errors = browse(report, "#sort=0d&family=variational&open=digits_mini.vae.gmm")
    assert errors == []
    expected = [("VAE", True), ("Training images", False), ("RAE-L2", False), ("Linear AE", False), ("2sVAE", True)]
    assert rows(document) == expected
    assert sorting(document) == [("descending", "Row")]
    opened = re.findall(r'<details id="([^"]*)" open="">', document)
    assert opened == ["digits_mini.vae.gmm"]
    assert "2 of 5 rows" in document


def test_clicks_do_the_same(browse, report, tmp_path):
    """GMM upwards: the best first, whoever has no such cell last; then downwards, who has none still last."""
    click = "document.querySelectorAll('#table1 thead button')[7].click();"
    document, errors = browse(acted(report, tmp_path / "up.html", click))
    assert errors == []
    assert [label for label, _ in rows(document)] == ["Training images", "RAE-L2", "Linear AE", "VAE", "2sVAE"]
    assert sorting(document) == [("ascending", "GMM")]
    choose = (
        "const family = document.querySelector('[name=family]'); family.value = 'baseline';"
        "family.dispatchEvent(new Event('change', {bubbles: true}));"
        "document.querySelector('#table1 summary').click();"
    )
    document, errors = browse(acted(report, tmp_path / "down.html", click + click + choose))
    assert errors == []
    shown = [("VAE", False), ("Linear AE", True), ("RAE-L2", False), ("Training images", True), ("2sVAE", False)]
    assert rows(document) == shown
    assert (
        re.search(r'<details id="digits_mini.vae.reconstruction" open="">', document) or document.count('open=""') == 1
    )
    document, errors = browse(acted(report, tmp_path / "again.html", click * 3))
    assert [label for label, _ in rows(document)] == ["VAE", "2sVAE", "RAE-L2", "Linear AE", "Training images"]
    assert sorting(document) == []  # the study's own order again


def test_a_phone_scrolls_tables_and_not_the_page(browse, report, tmp_path):
    """At 390 pixels; headless windows are no narrower than 500, hence a frame."""
    page = tmp_path / "phone.html"
    script = "const d = frame.contentDocument.documentElement; frame.title = `${d.clientWidth} ${d.scrollWidth}`;"
    text = html.escape(report.read_text())
    page.write_text(f'<iframe id="frame" width="390" height="800" style="border:0" srcdoc="{text}" onload="{script}">')
    document, errors = browse(page)
    client, scroll = map(int, re.search(r'<iframe [^>]*title="(\d+) (\d+)"', document).groups())
    assert 370 <= client <= 390
    assert scroll == client
    assert errors == []


LIGHT, DARK = "--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"
LOOK = """
document.querySelectorAll('details').forEach(one => { one.open = true; });
axe.run().then(found => {
  const serious = found.violations.filter(one => ['serious', 'critical'].includes(one.impact));
  const texts = serious.map(one => `${one.id}: ${one.nodes.map(node => node.html).join(' ')}`);
  const dark = matchMedia('(prefers-color-scheme: dark)').matches;
  document.body.textContent = JSON.stringify({dark, passes: found.passes.length, texts});
});
"""


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
@pytest.mark.parametrize("broken", [False, True])
def test_axe_finds_nothing_serious(browse, report, tmp_path, scheme, broken):
    """Everything unfolded, in light and dark; an image without a text would be found."""
    axe = node_module("axe-core") / "axe.min.js"
    page = report.read_text().replace("</body>", "<img src=''></body>" if broken else "</body>")
    (tmp_path / "whole.html").write_text(page)
    script = f"{axe.read_text()}\n{LOOK}".replace("</script", r"<\/script")
    document, errors = browse(
        acted(tmp_path / "whole.html", tmp_path / "axe.html", script), "", "--virtual-time-budget=60000", scheme
    )
    found = json.loads(html.unescape(re.search(r"<body>(.*)</body>", document, re.DOTALL)[1]))
    assert found["dark"] == (scheme == DARK)
    assert found["passes"] > 20
    assert [text.split(":")[0] for text in found["texts"]] == (["image-alt"] if broken else [])
    assert errors == []


def test_an_error_would_be_seen(browse, report, tmp_path):
    _, errors = browse(acted(report, tmp_path / "broken.html", "nowhere();"))
    assert len(errors) == 1
    assert "nowhere is not defined" in errors[0]
