"""The page of a fit in a real browser: nothing fails, every image is drawn, tables sort."""

import base64
import json
import re
import shutil
import subprocess

import pytest

from carpk.fitting import load_fit
from carpk.reporting import report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") \
    or shutil.which("google-chrome")
# a reader's clicks, and what the page is like after them, written where the test finds it
DRIVER = """<script>
const failures = [];
window.addEventListener("error", (e) => failures.push(e.message));
window.addEventListener("load", () => {
  const table = document.querySelector("details table");  // exposure of every patient
  const column = () => [...table.tBodies[0].rows].map((r) => r.cells[1].textContent);
  const [before, sorted] = [column(), []];
  for (let k = 0; k < 3; k++) {
    table.querySelectorAll("button.sort")[1].click();
    sorted.push(column());
  }
  const curve = document.querySelector('.drawing g[id*="patient-2-curve"]');
  curve.dispatchEvent(new Event("pointerenter"));
  const found = {
    failures, before, sorted, said: document.querySelector("#choose output").textContent,
    lit: document.querySelectorAll(".drawing .lit").length,
    images: [...document.images].map((i) => i.complete && i.naturalWidth > 0),
    overflow: document.documentElement.scrollWidth - window.innerWidth};
  document.body.innerHTML = "";
  document.body.append(Object.assign(document.createElement("pre"),
    {id: "found", textContent: btoa(unescape(encodeURIComponent(JSON.stringify(found))))}));
});
</script>"""


@pytest.fixture(scope="module")
def page(small_fit, tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    place = small_fit.save(tmp_path_factory.mktemp("fits"))
    text = report(load_fit(place), place).read_text("utf-8")
    (place / "driven.html").write_text(text.replace("<script>", DRIVER + "<script>", 1), "utf-8")
    return place / "driven.html"


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_answers_and_fits_the_window(page, width, tmp_path):
    shown = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}",
         "--enable-logging=stderr", f"--window-size={width},900", "--virtual-time-budget=20000",
         "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=300, check=True)
    assert "CONSOLE" not in shown.stderr
    found = json.loads(base64.b64decode(re.search(r'id="found">([^<]*)<', shown.stdout)[1]))
    assert found["failures"] == []
    assert found["images"]
    assert all(found["images"])
    up, down, again = ([float(c.split()[0]) for c in column] for column in found["sorted"])
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert again == [float(c.split()[0]) for c in found["before"]]
    assert found["said"].startswith("患者3: ")
    assert found["lit"] >= 2
    assert found["overflow"] <= 0
