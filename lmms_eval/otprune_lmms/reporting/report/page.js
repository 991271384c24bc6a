// What works with scripts is shown, and figures grow when their button is pressed.
document.documentElement.classList.add("scripted");
document.querySelectorAll("figure").forEach((figure) => {
  const button = figure.querySelector("button");
  button.addEventListener("click", () => {
    const wide = figure.classList.toggle("wide");
    button.setAttribute("aria-pressed", String(wide));
    button.textContent = wide ? "smaller" : "larger";
  });
});
