// What answers on the page: tables sort by their columns, and the drawing of all patients says
// who is who. Without scripts, and on paper, the page shows the same things at rest.
"use strict";

const number = (text) => {
  const found = text.trim().replace(/[−–]/g, "-").match(/^[<>]?\s*(-?\d+\.?\d*(?:e[-+]?\d+)?)/i);
  return found ? Number(found[1]) : NaN;
};

// numbers by size, then words, then blanks, whichever way the rest is sorted
const compared = (a, b, sign) => {
  const [x, y] = [number(a), number(b)];
  if (!a.trim() || !b.trim()) return !a.trim() - !b.trim();
  if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y) || sign * a.localeCompare(b);
  return sign * (x - y);
};

for (const table of document.querySelectorAll("table")) {
  const heads = [...(table.tHead ? table.tHead.rows[0].cells : [])];
  const bodies = [...table.tBodies].map((body) => [body, [...body.rows]]);
  if (!bodies.some(([, rows]) => rows.length > 1)) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const next = { null: "ascending", ascending: "descending" }[now];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (next) head.setAttribute("aria-sort", next);
      const sign = next === "descending" ? -1 : 1;
      const cell = (row) => row.cells[column]?.textContent ?? "";
      for (const [body, rows] of bodies) {
        const titles = rows.filter((row) => row.className === "group");
        const others = rows.filter((row) => row.className !== "group");
        if (next) others.sort((a, b) => compared(cell(a), cell(b), sign));
        body.append(...(next ? [...titles, ...others] : rows));
      }
    });
  });
}

const patients = document.getElementById("patients");
if (patients) {
  const { about, groups, prefix } = JSON.parse(patients.textContent);
  const parts = new Map(); // number of a patient -> the curves and dots of every drawing
  for (const part of document.querySelectorAll(`.drawing g[id*="${prefix}"]`)) {
    const of = part.id.split(prefix)[1].split("-")[0];
    parts.set(of, [...(parts.get(of) ?? []), part]);
  }
  const bar = document.getElementById("choose");
  const said = document.createElement("output");
  const choice = document.createElement("select");
  const label = document.createElement("label");
  let held = null;
  const show = (of) => {
    for (const part of document.querySelectorAll(".drawing g.lit")) part.classList.remove("lit");
    for (const part of parts.get(of) ?? []) {
      part.classList.add("lit");
      part.parentNode.append(part); // above the others
    }
    said.textContent = about[of] ?? "Point at a curve, or touch it.";
  };
  choice.add(new Option("all patients", ""));
  const listed = Object.entries(groups);
  for (const [name, members] of listed)
    choice.add(new Option(`${name} (${members.length} patients)`, name));
  const one = document.createElement("optgroup");
  one.label = "one patient";
  for (const of of parts.keys()) one.append(new Option(about[of].split(":")[0], `patient ${of}`));
  choice.add(one);
  choice.addEventListener("change", () => {
    const members = groups[choice.value] && new Set(groups[choice.value].map(String));
    held = choice.value.startsWith("patient ") ? choice.value.slice(8) : null;
    for (const [of, found] of parts)
      for (const part of found) part.classList.toggle("out", Boolean(members && !members.has(of)));
    show(held);
  });
  for (const [of, found] of parts)
    for (const part of found) {
      part.addEventListener("pointerenter", () => show(of));
      part.addEventListener("pointerleave", () => show(held));
      part.addEventListener("click", () => { held = held === of ? null : of; show(held); });
    }
  label.append("Show ", choice);
  bar.append(label, said);
  show(null);
}
