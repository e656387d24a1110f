document.documentElement.classList.add("js");
const room = document.querySelector("main").clientWidth;
for (const box of document.querySelectorAll(".hero, .viewer"))
  for (const range of box.querySelectorAll("input")) {
    const apply = () => box.style.setProperty("--" + range.name, range.value);
    // The first zoom fits the page.
    if (range.name === "zoom") range.value = Math.min(range.value, Math.floor(room / box.style.getPropertyValue("--width")));
    range.addEventListener("input", apply); apply();
  }
const images = [...document.querySelectorAll("img[data-title]")];
for (const select of document.querySelectorAll(".viewer select")) {
  images.forEach((image, index) => select.add(new Option(image.dataset.title, index)));
  select.selectedIndex = select.dataset.side === "right" ? 1 : 0;
  const target = select.closest(".viewer").querySelector("img." + select.dataset.side);
  const show = () => { const image = images[select.value]; target.src = image.src; target.alt = image.alt; };
  select.addEventListener("change", show); show();
}
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => { const { dataset, textContent } = row.cells[column]; return dataset.value === undefined ? textContent : +dataset.value; };
  const compare = (x, y) => typeof x === typeof y ? (x < y ? -1 : +(x > y)) : (typeof x === "number" ? -1 : 1);
  heads.forEach((head, column) => {
    const button = document.createElement("button"); button.type = "button"; button.append(...head.childNodes); head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      body.append(...[...body.rows].sort((a, b) => sign * compare(value(a, column), value(b, column))));
    });
  });
}
