// What mdBook's page lacks for readers who use a keyboard or a screen reader.
(() => {
  // Past the table of contents, and not by way of an address: that of a page that is not found has another base.
  const main = document.querySelector("main");
  main.tabIndex = -1;
  const skip = document.createElement("a");
  skip.className = "skip";
  skip.href = `${location.pathname}${location.search}#mdbook-content`;
  skip.textContent = "Skip to the text";
  skip.addEventListener("click", event => { event.preventDefault(); main.focus(); });
  document.body.prepend(skip);

  // To its place; where the lab has built the book, it is there.
  main.after(document.querySelector("footer.proved"));

  document.getElementById("mdbook-menu-bar").setAttribute("role", "banner");

  // A button in place of the label that opens the table of contents: it takes the focus, and says its state.
  const label = document.getElementById("mdbook-sidebar-toggle");
  const checkbox = document.getElementById("mdbook-sidebar-toggle-anchor");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "icon-button";
  button.title = label.title;
  button.setAttribute("aria-label", label.title);
  button.setAttribute("aria-controls", "mdbook-sidebar");
  button.append(...label.childNodes);
  button.addEventListener("click", () => label.click());
  const tell = () => button.setAttribute("aria-expanded", checkbox.checked);
  checkbox.addEventListener("change", tell);
  tell();
  label.hidden = true;
  label.before(button);

  // The boxes of a list to tick can be ticked, and say what they are for.
  for (const box of document.querySelectorAll("main li > input[type=checkbox]")) {
    box.disabled = false;
    box.setAttribute("aria-label", box.parentElement.textContent.trim());
  }

  // Of a change, the button copies the added lines.
  const textOf = globalThis.playground_text;
  globalThis.playground_text = (block, hidden) => {
    const text = textOf(block, hidden);
    if (!block.querySelector("code.language-diff")) return text;
    return text.split("\n").filter(line => line.startsWith("+")).map(line => line.slice(1)).join("\n");
  };

  // What scrolls must be within reach of the arrow keys.
  const reach = () => {
    for (const wide of document.querySelectorAll("pre > code, .table-wrapper")) {
      if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
      else wide.removeAttribute("tabindex");
    }
  };
  reach();
  addEventListener("resize", reach);
})();
