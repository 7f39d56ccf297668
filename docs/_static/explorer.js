// Explorers without a kernel: a control that moves leads to the nearest state that is drawn.
for (const form of document.querySelectorAll("form.explorer")) {
  const states = JSON.parse(form.dataset.states).map((s) => s.split(" ").map(Number));
  const words = JSON.parse(form.dataset.words);
  const inputs = [...form.querySelectorAll("input, select")];
  const image = form.querySelector("img");
  const status = form.querySelector("[role=status]");
  let now = states[0];

  function number(input) {
    return input.type === "checkbox" ? Number(input.checked) : Number(input.value);
  }

  function set(input, value) {
    if (input.type === "checkbox") input.checked = Boolean(value);
    else input.value = value;
    if (input.type === "range") {
      const text = JSON.parse(input.dataset.options)[value];
      input.setAttribute("aria-valuetext", text);
      input.nextElementSibling.textContent = text;
    }
  }

  // As few other controls as possible move, and those by as little as possible.
  function distance(state) {
    const steps = state.map((value, k) => Math.abs(value - now[k]));
    const moved = steps.filter((step) => step > 0).length;
    return 1000 * moved + steps.reduce((sum, step) => sum + step, 0);
  }

  function show(state) {
    now = state;
    inputs.forEach((input, k) => set(input, state[k]));
    const place = states.indexOf(state);
    image.style.objectPosition = `0 ${(100 * place) / Math.max(states.length - 1, 1)}%`;
    status.textContent = words[place];
  }

  form.addEventListener("input", (event) => {
    const k = inputs.indexOf(event.target);
    const drawn = states.filter((state) => state[k] === number(event.target));
    show(drawn.reduce((best, state) => (distance(state) < distance(best) ? state : best)));
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.reset(); // what the browser kept of an earlier visit
  show(now);
  form.hidden = false;
}
