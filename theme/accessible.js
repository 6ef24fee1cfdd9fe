// What mdBook's page lacks for readers who use a keyboard or a screen reader.
(() => {
  document.getElementById("mdbook-menu-bar").setAttribute("role", "banner");

  // A label that does what a button does.
  const toggle = document.getElementById("mdbook-sidebar-toggle");
  toggle.setAttribute("role", "button");
  toggle.tabIndex = 0;
  toggle.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      toggle.click();
    }
  });

  // What scrolls must be within reach of the arrow keys.
  const reach = () => {
    for (const code of document.querySelectorAll("pre > code")) {
      if (code.scrollWidth > code.clientWidth) code.tabIndex = 0;
      else code.removeAttribute("tabindex");
    }
  };
  reach();
  addEventListener("resize", reach);
})();
