// Pictures in, answers out. `ort` is ONNX Runtime; everything else is in this file.

const MAX_BYTES = 20_000_000;
const MAX_PIXELS = 25_000_000; // a 24-megapixel camera fits
const MAX_SIDE = 512; // of the square that the network gets; it shrinks it further by itself
const SEEN_SIDE = 32; // of what the network sees
const TOP = 5;

const page = document.documentElement;
const part = (id) => document.getElementById(id);
const facts = JSON.parse(part("facts").textContent);
const superclassOf = (label) => facts.coarse_names[facts.fine_to_coarse[label]];
const words = (name) => name.replaceAll("_", " ");
const percent = (share, digits) => `${(100 * share).toFixed(digits)}%`;

class Refusal extends Error {}

function make(tag, text = "", properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, properties);
}

// The network

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

async function unpack(id) {
  const element = part(id);
  const packed = new Blob([fromBase64(element.textContent)]);
  element.remove(); // megabytes that nobody reads again
  const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function loadNetwork() {
  const [wasm, network] = await Promise.all([unpack("wasm"), unpack("network")]);
  Object.assign(ort.env.wasm, { wasmBinary: wasm, numThreads: 1 });
  ort.env.logLevel = "error";
  const session = await ort.InferenceSession.create(network, { executionProviders: ["wasm"] });
  await session.run({ images: tensorOf(new ImageData(SEEN_SIDE, SEEN_SIDE)) }); // warm-up
  return session;
}

/** RGBA pixels of one picture as (1,3,H,W). */
function tensorOf({ data, width, height }) {
  const area = width * height;
  const planes = new Uint8Array(3 * area);
  for (let i = 0; i < area; i++) {
    planes[i] = data[4 * i];
    planes[area + i] = data[4 * i + 1];
    planes[2 * area + i] = data[4 * i + 2];
  }
  return new ort.Tensor("uint8", planes, [1, 3, height, width]);
}

/** (1,3,H,W) as RGBA pixels. */
function imageOf({ data, dims: [, , height, width] }) {
  const image = new ImageData(width, height);
  const area = width * height;
  for (let i = 0; i < area; i++) {
    image.data.set([data[i], data[area + i], data[2 * area + i], 255], 4 * i);
  }
  return image;
}

// A picture

/** Width times height, known before anything is decoded. */
async function areaOf(file) {
  const image = new Image();
  const address = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      Object.assign(image, { onload: resolve, onerror: reject, src: address });
    });
    return image.naturalWidth * image.naturalHeight;
  } finally {
    URL.revokeObjectURL(address);
  }
}

async function openFile(file, name) {
  if (file.size > MAX_BYTES) {
    throw new Refusal(`${name} is larger than ${MAX_BYTES / 1e6} MB; make it smaller first.`);
  }
  try {
    if ((await areaOf(file)) > MAX_PIXELS) {
      const limit = `${MAX_PIXELS / 1e6} megapixels`;
      throw new Refusal(`${name} has more than ${limit}; make it smaller first.`);
    }
    return await createImageBitmap(file, { colorSpaceConversion: "none" }); // upright, by EXIF
  } catch (error) {
    if (error instanceof Refusal) throw error;
    throw new Refusal(
      `${name} is no picture that this browser can read; save it as PNG or JPEG first.`,
    );
  }
}

/** The centre square on white, bit for bit unless it is larger than MAX_SIDE. */
function squareOf(bitmap) {
  const side = Math.min(bitmap.width, bitmap.height);
  const left = Math.floor((bitmap.width - side) / 2);
  const top = Math.floor((bitmap.height - side) / 2);
  const size = Math.min(side, MAX_SIDE);
  const canvas = make("canvas", "", { width: size, height: size });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "white";
  pen.fillRect(0, 0, size, size);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, left, top, side, side, 0, 0, size, size);
  bitmap.close();
  return pen.getImageData(0, 0, size, size);
}

// An answer

function doubtOf(probability, strangeness) {
  const limit = facts.calibration.most_strangeness;
  if (limit !== null && strangeness > limit) {
    return "This looks unlike the pictures that the network was trained on.";
  }
  return probability < facts.least_prob ? "No class is more likely right than wrong." : "";
}

async function classify(session, name, open) {
  const start = performance.now();
  const square = squareOf(await open());
  const decoded = performance.now();
  const { probs, strangeness, pixels } = await session.run({ images: tensorOf(square) });
  const done = performance.now();
  const classes = Array.from(probs.data, (probability, label) => ({ label, probability }))
    .sort((one, other) => other.probability - one.probability)
    .slice(0, TOP);
  return {
    name,
    classes,
    doubt: doubtOf(classes[0].probability, strangeness.data[0]),
    image: imageOf(pixels),
    decoding: decoded - start,
    network: done - decoded,
  };
}

async function outcomeOf(session, name, open) {
  try {
    return await classify(session, name, open);
  } catch (error) {
    const failed = "This browser failed to answer; reload the page and try again.";
    return { name, refusal: error instanceof Refusal ? error.message : failed };
  }
}

// What is shown

function say(title, ...sentence) {
  const [heading, paragraph] = part("verdict").children;
  heading.textContent = title;
  paragraph.replaceChildren(...sentence);
}

function draw(canvas, image) {
  const pen = canvas.getContext("2d");
  if (image) pen.putImageData(image, 0, 0);
  else pen.clearRect(0, 0, canvas.width, canvas.height);
}

function rowOf(name, superclass, share) {
  const names = make("div", `${name} `);
  names.append(make("span", superclass));
  const bar = make("div", "", { className: "bar" });
  bar.style.width = share || "0";
  const track = make("div", "", { className: "track", ariaHidden: "true" });
  track.append(bar);
  const row = make("li", "", { ariaHidden: share ? null : "true" });
  row.append(names, make("b", share), track);
  return row;
}

/** The most probable classes, or as many blank rows, so that nothing below them moves. */
function rowsOf(classes) {
  if (!classes) return Array.from({ length: TOP }, () => rowOf("\u00a0", "", ""));
  return classes.map(({ label, probability }) =>
    rowOf(words(facts.fine_names[label]), words(superclassOf(label)), percent(probability, 1)),
  );
}

function show(outcome) {
  const { refusal, classes, doubt, image, decoding, network } = outcome;
  const answer = part("answer");
  answer.className = refusal ? "refused" : doubt ? "doubtful" : "sure";
  draw(part("pixels"), image);
  part("classes").replaceChildren(...rowsOf(classes));
  part("time").textContent = refusal
    ? ""
    : `${(decoding + network).toFixed(0)} ms: picture ${decoding.toFixed(0)}, ` +
      `network ${network.toFixed(0)}`;
  if (refusal) {
    delete answer.dataset.label;
    delete answer.dataset.probability;
    say("That did not work", refusal);
  } else {
    const { label, probability } = classes[0];
    const name = words(facts.fine_names[label]);
    Object.assign(answer.dataset, { label, probability });
    if (doubt) say("Not sure", `${doubt} The nearest is `, make("b", name), ".");
    else say(name, `${percent(probability, 0)} sure. Superclass: ${words(superclassOf(label))}.`);
  }
  part("verdict").scrollIntoView({ block: "nearest" });
}

function entryOf(outcome) {
  const { name, refusal, classes, doubt, image } = outcome;
  const button = make("button", "", { type: "button" });
  const picture = make("canvas", "", { width: SEEN_SIDE, height: SEEN_SIDE, ariaHidden: "true" });
  draw(picture, image);
  const best = refusal ? "" : words(facts.fine_names[classes[0].label]);
  const verdict = refusal ? "Did not work" : doubt ? `Not sure: ${best}` : best;
  const line = make("span", `${verdict} `);
  line.append(make("small", name));
  button.append(picture, line, make("b", refusal ? "" : percent(classes[0].probability, 0)));
  button.addEventListener("click", () => choose(button, outcome));
  return button;
}

function choose(button, outcome) {
  part("history").querySelector("[aria-current]")?.removeAttribute("aria-current");
  button.setAttribute("aria-current", "true");
  show(outcome);
}

function add(outcome) {
  const history = part("history");
  const button = entryOf(outcome);
  const row = make("li");
  row.append(button);
  history.querySelector("ol").prepend(row);
  history.hidden = history.querySelectorAll("li").length < 2;
  choose(button, outcome);
}

function showFacts() {
  const { dataset, top1, calibration, model, fine_names: names } = facts;
  part("synthetic").hidden = dataset !== "SYNTHETIC";
  part("name").textContent = model.name;
  part("dataset").textContent = dataset;
  part("top1").textContent =
    top1 === null ? "not measured" : `${percent(top1, 2)}, before its weights were rounded`;
  part("calibration").textContent = calibration.source;
  part("least").textContent = percent(facts.least_prob, 0);
  part("strange").hidden = calibration.most_strangeness === null;
  part("count").textContent = names.length;
}

// Pictures, one after another

let waiting = 0;
let queue;

function ask(name, open) {
  waiting += 1;
  queue = queue.then(async (session) => {
    if (!session) return null;
    page.dataset.state = "busy";
    add(await outcomeOf(session, name, open));
    waiting -= 1;
    if (!waiting) page.dataset.state = "ready";
    return session;
  });
}

function askAll(files) {
  for (const file of files) {
    const name = file.name || "The picture";
    ask(name, () => openFile(file, name));
  }
}

async function start() {
  try {
    const session = await loadNetwork();
    page.dataset.state = "ready";
    say("Ready", "The answer comes here.");
    return session;
  } catch {
    page.dataset.state = "failed";
    for (const button of document.querySelectorAll("button")) button.disabled = true;
    say(
      "The network does not run here",
      "It needs a browser of 2023 or newer that may use WebAssembly, and some memory.",
    );
    return null;
  }
}

// Where pictures come from

const files = part("files");
part("choose").addEventListener("click", () => files.click());
files.addEventListener("change", () => {
  askAll(files.files);
  files.value = ""; // so that the same file may be chosen again
});

document.addEventListener("paste", ({ clipboardData }) => askAll(clipboardData.files));

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    page.classList.toggle("dropping", kind === "dragenter" || kind === "dragover");
  });
}
document.addEventListener("drop", ({ dataTransfer }) => {
  if (dataTransfer.files.length) askAll(dataTransfer.files);
  else ask("The picture", refuse("Only files can be dropped here; save the picture first."));
});

function refuse(sentence) {
  return () => Promise.reject(new Refusal(sentence));
}

for (const button of part("examples").children) {
  const { alt, src } = button.firstElementChild;
  const bytes = () => fromBase64(src.slice(src.indexOf(",") + 1));
  button.addEventListener("click", () => ask(alt, () => openFile(new Blob([bytes()]), alt)));
}

// The camera

const camera = part("camera");
const viewfinder = part("viewfinder");
const video = viewfinder.querySelector("video");

camera.hidden = !navigator.mediaDevices?.getUserMedia;
camera.addEventListener("click", async () => {
  camera.disabled = true;
  try {
    const wanted = { facingMode: "environment", width: { ideal: 1280 }, height: { ideal: 720 } };
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: wanted });
  } catch {
    const sentence = "The camera is missing, busy or not allowed; choose a picture instead.";
    ask("Camera", refuse(sentence));
  }
  camera.disabled = false;
  camera.focus(); // which a disabled button loses, and where a closed dialog gives it back
  if (video.srcObject) viewfinder.showModal();
});
video.addEventListener("loadeddata", () => {
  part("take").disabled = false;
  part("take").focus();
});
part("take").addEventListener("click", async () => {
  part("take").disabled = true; // one picture, however often it is clicked
  const frame = await createImageBitmap(video);
  viewfinder.close();
  ask("Camera", () => frame);
});
part("cancel").addEventListener("click", () => viewfinder.close());
viewfinder.addEventListener("close", () => {
  for (const track of video.srcObject.getTracks()) track.stop();
  video.srcObject = null;
  part("take").disabled = true;
});

showFacts();
part("classes").replaceChildren(...rowsOf(null));
queue = start();
