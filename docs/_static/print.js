// Paper is white: a page in dark colours prints in light ones.
let screen;
addEventListener("beforeprint", () => {
  screen = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = screen;
});
