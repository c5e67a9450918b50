// Sorts and filters Table 1. What is shown stands in the address: #sort=3&family=plain&dataset=digits&open=digits.ae.gmm;
// a column's number counts from 0, and a d behind it turns the order round.
(() => {
  const table = document.getElementById("table1");
  if (!table) return;
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const form = document.getElementById("filters"), count = document.getElementById("count");

  const state = () => new URLSearchParams(location.hash.includes("=") ? location.hash.slice(1) : "");
  const go = (key, value) => {
    const next = state();
    next.delete(key);
    if (value) next.set(key, value);
    history.replaceState(null, "", "#" + (String(next) || "table1="));
    show();
  };
  const value = (row, i) => {
    const cell = row.cells[i];
    if (!("value" in cell.dataset)) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => (typeof a === "number" ? a - b : a.localeCompare(b));

  const show = () => {
    const wanted = state(), [, digits, down] = /^(\d+)(d?)$/.exec(wanted.get("sort") ?? "") ?? [];
    const column = digits && digits < heads.length ? Number(digits) : -1;
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    const sorted = [...rows];
    if (column >= 0) {
      sorted.sort((one, other) => {
        const a = value(one, column), b = value(other, column);
        if (a === null || b === null) return (a === null) - (b === null);  // no such cell: last, either way
        return down ? compare(b, a) : compare(a, b);
      });
    }
    body.append(...sorted);
    for (const select of form.querySelectorAll("select")) select.value = wanted.get(select.name) ?? "";
    for (const row of rows) {
      row.hidden = [...form.querySelectorAll("select")].some((one) => one.value && row.dataset[one.name] !== one.value);
    }
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = `${shown} of ${rows.length} rows`;
    const cell = document.getElementById(wanted.get("open") ?? "");
    if (cell) cell.open = true;
  };

  heads.forEach((head, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = state().get("sort");
      go("sort", now === `${i}` ? `${i}d` : now === `${i}d` ? "" : `${i}`);
    });
  });
  form.hidden = false;
  form.addEventListener("change", (event) => go(event.target.name, event.target.value));
  addEventListener("hashchange", show);
  show();
})();
