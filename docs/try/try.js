"use strict";
// A picture goes in; maps H, scores v and S = sum v_i H_i (Eq. 1) come out, in the page.

const PARTS = "try/";
const MOST = 64e6; // pixels of a picture
const CANVAS = 16e6; // pixels that a canvas holds on every phone
const SIDE = 16384; // pixels of a side of such a canvas
const MOST_LONG = 4; // sides that are shown differ at most by this factor
const SHARE = 0.01; // of the picture: what a network finds less of is not listed
const $ = (id) => document.getElementById(id);
let page, picture, shown; // page.json; what is looked at; {network, result, v}
let latest = 0; // number of the picture asked for last

// --- what the reader is told --------------------------------------------------------

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

/** Say what is being done, and let the browser show it first. */
function note(text) {
  $("status").textContent = text;
  return new Promise((next) => setTimeout(next, 20));
}

class Refused extends Error {} // its words are for the reader

const percent = (share) => `${Math.round(100 * share)}\u00a0%`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const colour = (k) => `hsl(${(k * 137.5) % 360} 85% 55%)`;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// --- the network --------------------------------------------------------------------

let bytesDone = 0, bytesWanted = 0;

const broken = (name) => new Refused(
  `The file ${name} could not be loaded whole; check the connection and choose the picture again.`);

async function fetchPart(name, length) {
  const failed = () => { throw broken(name); };
  const answer = await fetch(PARTS + name).catch(failed);
  if (!answer.ok) failed();
  const reader = answer.body.getReader(), chunks = [];
  for (let part; !(part = await reader.read().catch(failed)).done;) {
    chunks.push(part.value);
    bytesDone += part.value.length;
    $("progress").value = bytesDone / bytesWanted;
  }
  const bytes = new Uint8Array(await new Blob(chunks).arrayBuffer());
  return length && bytes.length !== length ? failed() : bytes;
}

async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes; // the server has done it
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const once = {}; // promises of what is loaded; a failure may be tried again
function load(name, make) {
  return once[name] ??= make().catch((error) => { delete once[name]; throw error; });
}

async function makeRuntime() {
  const binary = await unpacked(await fetchPart("ort-wasm.gz"))
    .catch(() => { throw broken("ort-wasm.gz"); });
  await new Promise((done, failed) => {
    const script = element("script", { src: `${PARTS}ort.js`, onload: done });
    script.onerror = () => failed(broken("ort.js"));
    document.head.append(script);
  });
  if (!globalThis.ort) throw broken("ort.js");
  ort.env.wasm.numThreads = 1; // more need headers that few servers send
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.proxy = true; // in a thread of its own: the page stays alive
  ort.env.wasm.wasmPaths = { mjs: new URL(`${PARTS}ort-wasm.js`, document.baseURI).href };
}

async function makeSession(network) {
  const [bytes] = await Promise.all([
    fetchPart(network.file, network.bytes), load("runtime", makeRuntime)]);
  return ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] })
    .catch(() => { throw broken(network.file); });
}

async function sessions(networks) {
  const missing = networks.filter((network) => !once[network.name]);
  bytesDone = 0;
  bytesWanted = (once.runtime ? 0 : page.runtime)
    + missing.reduce((sum, network) => sum + network.bytes, 0);
  if (missing.length) $("status").textContent = `Loading ${megabytes(bytesWanted)} …`;
  $("progress").hidden = !missing.length;
  try {
    return await Promise.all(
      networks.map((network) => load(network.name, () => makeSession(network))));
  } finally {
    $("progress").hidden = true;
  }
}

/** H, (C+1) x size x size; v, C; S, size x size; all Float32Array. */
async function run(session, size, square) {
  const input = new ort.Tensor("uint8", square, [1, 3, size, size]);
  const { H, v, S } = await session.run({ image: input });
  return { H: H.data, v: v.data, S: S.data };
}

/** Eq. 1: S = sum v_i H_i over the categories; channel 0 of H is the background. */
function aggregate(H, v) {
  const count = H.length / (v.length + 1), S = new Float32Array(count);
  for (let i = 0; i < v.length; i++)
    for (let p = 0; p < count; p++) S[p] += v[i] * H[(i + 1) * count + p];
  return S;
}

/** The largest map of each pixel, 0 for the background. */
function segment(H, channels) {
  const count = H.length / channels, best = new Uint8Array(count);
  for (let k = 1; k < channels; k++)
    for (let p = 0; p < count; p++)
      if (H[k * count + p] > H[best[p] * count + p]) best[p] = k;
  return best;
}

// --- pictures -----------------------------------------------------------------------

/** Weights of Pillow's BILINEAR: a triangle as wide as a pixel of the smaller picture. */
function weights(from, to) {
  const scale = from / to, reach = Math.max(scale, 1), one = 2 ** 22;
  return Array.from({ length: to }, (_, k) => {
    const centre = (k + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(from, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({ length: last - first }, (_, i) =>
      Math.max(0, 1 - Math.abs((first + i - centre + 0.5) / reach)));
    const sum = raw.reduce((a, b) => a + b);
    return { first, parts: raw.map((w) => Math.trunc(0.5 + (w / sum) * one) / one) };
  });
}

/** Three planes, `plane` apart, whose rows become `size` long; those of `to` run as told. */
function pass(from, { length, rows, step, row, plane }, size, [across, down]) {
  const table = weights(length, size), to = new Uint8Array(3 * size * rows);
  for (let c = 0; c < 3; c++)
    for (let y = 0; y < rows; y++)
      for (let x = 0; x < size; x++) {
        const { first, parts } = table[x];
        let sum = 0.5, at = c * plane + y * row + first * step;
        for (let i = 0; i < parts.length; i++, at += step) sum += parts[i] * from[at];
        to[c * size * rows + x * across + y * down] = sum;
      }
  return to;
}

/** Pixels as a planar (3, size, size) square, as Pillow resizes them: what shrinks most, first. */
function resized({ data, width, height }, size) {
  const tall = height - size > 2 * Math.max(0, width - size);
  const steps = tall ? { step: 4 * width, row: 4 } : { step: 4, row: 4 * width };
  const [length, rows] = tall ? [height, width] : [width, height];
  const narrow = pass(data, { length, rows, ...steps, plane: 1 }, size, [rows, 1]);
  const turned = { length: rows, rows: size, step: 1, row: rows, plane: size * rows };
  return pass(narrow, turned, size, tall ? [1, size] : [size, 1]);
}

function canvasOf(source, width, height) {
  const shrink = Math.min(
    1, Math.sqrt(CANVAS / (width * height)), SIDE / Math.max(width, height));
  const canvas = element("canvas", {
    width: Math.max(1, Math.round(width * shrink)),
    height: Math.max(1, Math.round(height * shrink)),
  });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** A file's picture, upright, on a canvas; Refused with a sentence if there is none. */
async function decode(file) {
  const name = file.name || "The picture";
  if (!file.size) throw new Refused(`${name} is empty (0 bytes): copy or download it again.`);
  await note("Opening the picture …");
  const address = URL.createObjectURL(file), image = new Image();
  try {
    await new Promise((done, failed) => {
      Object.assign(image, { onload: done, onerror: failed, src: address });
    }).catch(async () => {
      const start = new TextDecoder("latin1").decode(await file.slice(4, 32).arrayBuffer());
      const heic = /^ftyp.*(hei|hev|mif1|msf1)/s.test(start);
      throw new Refused(heic
        ? `${name} is a HEIC picture, which this browser cannot open: save it as JPEG.`
        : `${name} is no picture that this browser can open: choose a JPEG, PNG or WebP.`);
    });
    const { naturalWidth: width, naturalHeight: height } = image;
    if (!width || !height)
      throw new Refused(`${name} has no size of its own: save it as JPEG or PNG.`);
    if (width * height > MOST)
      throw new Refused(`${name} has ${Math.round(width * height / 1e6)} megapixels, and `
        + `${MOST / 1e6} are possible here: save a smaller copy.`);
    return canvasOf(image, width, height);
  } finally {
    URL.revokeObjectURL(address);
  }
}

// --- drawing ------------------------------------------------------------------------

/** Paint a size x size map in greys, on the picture's proportions. */
function paintGrey(canvas, map, words) {
  paint(canvas, map, (value) => { const g = 255 * value; return [g, g, g, 255]; });
  canvas.setAttribute("aria-label", words);
}

function paint(canvas, map, rgba, under) {
  const size = Math.sqrt(map.length), small = element("canvas", { width: size, height: size });
  const pixels = new ImageData(size, size);
  map.forEach((value, p) => pixels.data.set(rgba(value), 4 * p));
  small.getContext("2d").putImageData(pixels, 0, 0);
  const { width, height } = picture.canvas, side = Math.min(640, Math.max(160, width, height));
  const scale = side / Math.max(width, height), least = side / MOST_LONG;
  canvas.width = Math.round(Math.max(least, width * scale));
  canvas.height = Math.round(Math.max(least, height * scale));
  const context = canvas.getContext("2d");
  if (under) context.drawImage(under, 0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** Colour what was found over the picture; return [[category, share], ...]. */
function paintMask(canvas, network, H) {
  const best = segment(H, network.categories.length + 1);
  const rgb = network.categories.map((_, i) => {
    const context = element("canvas", { width: 1, height: 1 }).getContext("2d");
    context.fillStyle = colour(i);
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3), 165];
  });
  paint(canvas, best, (k) => (k ? rgb[k - 1] : [0, 0, 0, 0]), picture.canvas);
  const shares = network.categories.map((_, i) => best.filter((k) => k === i + 1).length);
  const found = shares.map((n, i) => [i, n / best.length]).filter(([, n]) => n >= SHARE);
  found.sort((a, b) => b[1] - a[1]);
  const words = found.map(([i, n]) => `${network.categories[i]} ${percent(n)}`).join(", ");
  canvas.setAttribute("aria-label", `The picture, coloured: ${words || "nothing known"}`);
  return found;
}

// --- the page -----------------------------------------------------------------------

function showSaliency() {
  const S = aggregate(shown.result.H, shown.v);
  const bright = S.filter((value) => value > 0.5).length / S.length;
  paintGrey($("sum"), S, `S with your sliders: ${percent(bright)} of the picture stand out`);
  shown.S = S;
}

function slider(i, H, v) {
  const { network } = shown, name = network.categories[i], count = network.size ** 2;
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  const map = H.subarray((i + 1) * count, (i + 2) * count);
  const mean = map.reduce((a, b) => a + b) / count;
  paintGrey(canvas, map, `Map of ${name}, ${percent(mean)} of the picture`);
  const value = element("output", { textContent: v[i].toFixed(2) });
  const range = element("input", {
    type: "range", min: 0, max: 1, step: 0.01, value: v[i], id: `v${i}` });
  range.oninput = () => {
    shown.v[i] = Number(range.value);
    value.textContent = shown.v[i].toFixed(2);
    showSaliency();
  };
  return element("li", {}, canvas,
    element("label", { htmlFor: range.id }, `${name}: `, element("var", { textContent: "v" }),
      " = ", value), range);
}

function showSliders() {
  const { network, result } = shown, count = network.size ** 2;
  shown.v = Float32Array.from(result.v);
  const mass = network.categories.map((_, i) =>
    result.H.subarray((i + 1) * count, (i + 2) * count).reduce((a, b) => a + b) / count);
  const order = [...mass.keys()].sort((a, b) => mass[b] - mass[a]);
  const first = Math.max(3, mass.filter((m) => m >= SHARE).length);
  const items = order.map((i) => slider(i, result.H, result.v));
  $("maps").replaceChildren(...items.slice(0, first));
  $("others").replaceChildren(...items.slice(first));
  $("rest").hidden = items.length <= first;
  $("rest").firstElementChild.textContent =
    `${items.length - first} more that it knows and hardly sees here`;
  showSaliency();
}

function show(network, result) {
  shown = { network, result };
  const found = paintMask($("mask"), network, result.H);
  const names = found.flatMap(([i, n], k) => [
    k ? "; " : "", element("span", { className: "swatch", style: `background: ${colour(i)}` }),
    ` ${network.categories[i]}, ${percent(n)} of the picture`]);
  $("legend").replaceChildren(...(names.length ? names : ["It sees nothing that it knows"]), ".");
  const bright = result.S.filter((value) => value > 0.5).length / result.S.length;
  paintGrey($("saliency"), result.S, `Saliency: ${percent(bright)} of the picture stand out`);
  $("untrained").textContent = network.saliency ? ""
    : "This network was never told what stands out: its map means nothing.";
  $("knows").textContent = `It knows ${network.categories.length} things: `
    + `${network.categories.join(", ")}. Anything else it must leave uncoloured, or call by `
    + "one of these names.";
  $("idle").hidden = !network.saliency || result.v.some((v) => v < 0.95);
  showSliders();
}

function showNetworks(networks, results) {
  const chosen = networks.find((n) => n.name === shown?.network.name) ?? networks.at(-1);
  const labels = networks.map((network, k) => {
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    const input = element("input", {
      type: "radio", name: "network", value: network.name, checked: network === chosen });
    input.onchange = () => show(network, results[k]);
    const label = element("label", {}, canvas, input,
      element("strong", { textContent: ` Network ${network.label}` }),
      `: learned ${network.words}.`);
    paintMask(canvas, network, results[k].H);
    return label;
  });
  $("networks").replaceChildren($("networks").firstElementChild, ...labels);
  $("networks").hidden = networks.length < 2;
  show(chosen, results[networks.indexOf(chosen)]);
}

/** Show what every network of a kind says of a canvas. */
async function look(canvas, kind) {
  const mine = ++latest;
  problem("");
  const networks = page.networks.filter((network) => network.kind === kind);
  for (const input of $("kinds").querySelectorAll("input")) input.checked = input.value === kind;
  const ready = await sessions(networks);
  if (mine !== latest) return;
  await note("Looking …");
  const start = performance.now(), results = [];
  const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const squares = {};
  for (const [k, session] of ready.entries()) {
    const { size } = networks[k];
    squares[size] ??= resized(image, size);
    results.push(await run(session, size, squares[size].slice())); // goes to the thread
  }
  if (mine !== latest) return;
  picture = { canvas, kind };
  $("result").hidden = false;
  showNetworks(networks, results);
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const how = networks.length > 1 ? `${networks.length} networks` : "the network";
  $("status").textContent = `Done: ${how} for ${kind}s took ${seconds} s on your device.`;
}

/** Do something that may be refused, in which case the page says so and goes on. */
async function attempt(action) {
  const mine = latest + 1;
  try {
    await action();
  } catch (error) {
    if (latest > mine) return; // another picture was chosen meanwhile
    $("status").textContent = picture ? "Below is still the picture before." : "";
    problem(error instanceof Refused ? error.message
      : `This browser could not compute it (${error.message}); try a smaller picture, or `
        + "another browser.");
  }
}

let ownKind; // what the visitor said own pictures are; examples bring their own kind
const open = (file) => file && attempt(async () => look(await decode(file), ownKind));

async function openExample(button, { file, kind }) {
  for (const other of $("examples").children) other.ariaPressed = other === button;
  await attempt(async () => {
    const answer = await fetch(PARTS + file).catch(() => null);
    if (!answer?.ok) throw new Refused(`The file ${file} could not be loaded.`);
    await look(await decode(new File([await answer.blob()], file)), kind);
  });
}

function ownPicture(file) {
  for (const button of $("examples").children) button.ariaPressed = false;
  open(file);
}

async function openCamera() {
  const video = $("shot").querySelector("video");
  const stream = await navigator.mediaDevices
    .getUserMedia({ video: { facingMode: "environment" } })
    .catch(() => { throw new Refused("The browser gives no camera; choose a file instead."); });
  video.srcObject = stream;
  $("shot").onclose = () => stream.getTracks().forEach((track) => track.stop());
  $("cancel").onclick = () => $("shot").close();
  $("take").onclick = () => {
    const canvas = canvasOf(video, video.videoWidth, video.videoHeight);
    $("shot").close();
    attempt(() => look(canvas, ownKind));
  };
  $("shot").showModal();
}

function listen() {
  $("file").onchange = () => { ownPicture($("file").files[0]); $("file").value = ""; };
  $("reset").onclick = showSliders;
  $("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  $("camera").onclick = () => attempt(openCamera);
  document.addEventListener("paste", (event) => ownPicture(event.clipboardData.files[0]));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    ownPicture(event.dataTransfer.files[0]);
  });
}

function fill() {
  const kinds = [...new Set(page.networks.map((network) => network.kind))].reverse();
  [ownKind] = kinds;
  for (const [k, kind] of kinds.entries()) {
    const input = element("input", { type: "radio", name: "kind", value: kind, checked: !k });
    input.onchange = () => {
      ownKind = kind;
      if (picture) attempt(() => look(picture.canvas, kind));
    };
    $("kinds").append(element("label", {}, input, ` a ${kind}`));
  }
  $("kinds").hidden = kinds.length < 2;
  for (const example of page.examples) {
    const image = element("img", { src: PARTS + example.file, alt: example.words });
    const button = element("button", { type: "button", ariaPressed: false }, image);
    button.onclick = () => openExample(button, example);
    $("examples").append(button);
  }
  const sizes = kinds.map((kind) => {
    const own = page.networks.filter((network) => network.kind === kind);
    return `${megabytes(own.reduce((sum, n) => sum + n.bytes, 0))} for ${kind}s`;
  });
  $("transfer").textContent = `The first picture loads ${megabytes(page.runtime)} that run `
    + `networks, and the networks: ${sizes.join(", ")}. Later ones of the same kind load nothing.`;
  const credits = new Map();
  for (const { words, credit } of page.examples)
    credits.set(credit, credits.has(credit) ? `${credits.get(credit)}; ${words}` : words);
  $("credits").textContent = `${[...credits].map(([by, what]) => `${what}: ${by}`).join(". ")}. `
    + "Computed by ONNX Runtime Web, MIT licence.";
}

/** Why this browser cannot show the page, or nothing. */
function obstacle() {
  if (location.protocol === "file:")
    return "A browser lets no page load its parts from files. Type this in the folder of "
      + "try.html: python -m http.server 8000, and open http://localhost:8000/try.html";
  const simd = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1,
    8, 0, 65, 0, 253, 15, 253, 98, 11]; // a module of two SIMD instructions
  if (typeof WebAssembly !== "object" || typeof DecompressionStream !== "function"
    || !WebAssembly.validate(new Uint8Array(simd)))
    return "This page computes with WebAssembly and SIMD, which this browser lacks or has "
      + "switched off: open it in a current Chrome, Edge, Firefox or Safari.";
}

async function start() {
  const why = obstacle();
  if (why) return problem(why);
  const answer = await fetch(`${PARTS}page.json`).catch(() => null);
  if (!answer?.ok) return problem("The file page.json could not be loaded; reload the page.");
  page = await answer.json();
  fill();
  listen();
  $("main").hidden = false;
}

start();
