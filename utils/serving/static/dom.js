// Small helpers to build elements. Texts go in as texts: only what the server escaped is ever read as HTML.

/** Make an element with properties and children: elements or texts. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Show a message in the alert of a form, or hide the alert if there is none. */
export function tell(form, message, box = null) {
  let alert = form.querySelector(".error");
  if (!alert) {
    alert = make("p", { className: "error", hidden: true });
    alert.setAttribute("role", "alert");
    form.querySelector("[type=submit]").before(alert);
  }
  alert.hidden = !message;
  alert.textContent = message ?? "";
  for (const other of form.querySelectorAll("[aria-invalid]")) other.removeAttribute("aria-invalid");
  if (message && box) {
    box.setAttribute("aria-invalid", "true");
    box.focus();
  }
}

/** Make the tabs of the sections that are not left out, with the keys that a screen reader expects of tabs. */
export function makeTabs(list, sections) {
  const tabs = sections.map((section) => {
    const tab = make("button", { type: "button", id: `tab-${section.id}`, textContent: section.dataset.tab });
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", section.id);
    section.setAttribute("role", "tabpanel");
    section.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => show(section.id));
    list.append(tab);
    return tab;
  });
  const show = (id) => sections.forEach((section, i) => {
    section.hidden = section.id !== id;
    tabs[i].setAttribute("aria-selected", String(!section.hidden));
    tabs[i].tabIndex = section.hidden ? -1 : 0;
  });
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(event.target), last = tabs.length - 1;
    const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    tabs[to].focus();
    tabs[to].click();
  });
  show(sections[0].id);
  return show;
}
