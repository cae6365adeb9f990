"use strict";
const $ = (id) => document.getElementById(id);
const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};
const STAGES = ["decode", "queue", "compute", "other"];
const MOST_AT_ONCE = 4; // requests under way; the rest wait here and not in the server's queue
const MOST_SHOWN = 60;
const percent = (score) => score >= 0.9995 && score < 1 ? "> 99.9 %" : score > 0 && score < 0.0005 ? "< 0.1 %" : (score * 100).toFixed(1) + " %";
const ms = (value) => value.toFixed(value < 10 ? 2 : 1) + " ms";
const bytes = (count) => count < 1e3 ? count + " B" : count < 1e6 ? (count / 1e3).toFixed(1) + " kB" : (count / 1e6).toFixed(1) + " MB";
let info = null, model = null, isAway = false, underWay = 0, nextLook = 0, looks = 0;
const waiting = []; // cards whose pictures have not been sent
const route = (path) => model === null ? path : `${path}?model=${encodeURIComponent(model)}`;

// --- one picture -----

// What of a picture the network sees, in shares of its sides: zoo/data/preprocess.py crop_box.
function seenPart(width, height, preprocessing) {
  if (preprocessing.resize === "squash") return { left: 0, top: 0, width: 1, height: 1 };
  const side = Math.min(width, height) * preprocessing.image_size / (preprocessing.resize_size || preprocessing.image_size);
  return { left: (1 - side / width) / 2, top: (1 - side / height) / 2, width: side / width, height: side / height };
}

function drawSeen(card) {
  const image = card.querySelector("img"), seen = card.querySelector(".seen");
  if (!info || !image.naturalWidth) return;
  const part = seenPart(image.naturalWidth, image.naturalHeight, info.preprocessing);
  for (const [side, share] of Object.entries(part)) seen.style[side] = share * 100 + "%";
  seen.title = "What the network sees" + (info.preprocessing.resize === "squash" ? ", squeezed to a square" : "");
  seen.hidden = part.width === 1 && part.height === 1;
  image.style.filter = info.preprocessing.color_order === "grey" ? "grayscale(1)" : ""; // as the network takes it
}

function addCard(picture, name) {
  const card = $("answer").content.firstElementChild.cloneNode(true);
  const image = card.querySelector("img"), url = URL.createObjectURL(picture);
  card.picture = picture;
  card.pictureName = name;
  card.setAttribute("aria-label", name);
  card.querySelector(".name").textContent = card.querySelector(".name").title = name;
  card.querySelector(".size").textContent = bytes(picture.size);
  image.alt = "Picture: " + name;
  image.onload = () => {
    image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 96);
    card.querySelector(".size").textContent = `${image.naturalWidth} × ${image.naturalHeight} px, ${bytes(picture.size)}`;
    drawSeen(card);
  };
  image.onerror = () => { image.hidden = true; card.querySelector(".frame").classList.add("none"); };
  image.src = url;
  card.querySelector(".remove").addEventListener("click", () => remove(card));
  card.querySelector(".wrong button").addEventListener("click", () => send(card));
  for (const stage of STAGES) {
    const piece = element("i"), row = element("li"), dot = element("i");
    piece.style.background = dot.style.background = `var(--${stage})`;
    card.querySelector(".split").append(piece);
    row.append(dot, element("span"));
    card.querySelector(".legend").append(row);
  }
  $("grid").prepend(card);
  while ($("grid").children.length > MOST_SHOWN) remove($("grid").lastElementChild);
  showCounts();
  return card;
}

function remove(card) {
  card.request?.abort();
  if (waiting.includes(card)) waiting.splice(waiting.indexOf(card), 1);
  URL.revokeObjectURL(card.querySelector("img").src);
  const next = card.nextElementSibling || card.previousElementSibling;
  card.remove();
  (next || $("results")).focus({ preventScroll: true });
  showCounts();
}

function showCounts() {
  const count = $("grid").children.length;
  $("blank").hidden = count > 0;
  $("clear").hidden = count < 2;
}

function showPart(card, part) {
  card.querySelector(".waiting").hidden = part !== "waiting";
  card.querySelector(".wrong").hidden = part !== "wrong";
  for (const name of [".top", ".bars", ".latency"]) card.querySelector(name).hidden = part !== "answer";
}

function showProblem(card, problem, hint, canRetry) {
  const wrong = card.querySelector(".wrong");
  wrong.querySelector("strong").textContent = problem;
  wrong.querySelector("span").textContent = hint || "";
  wrong.querySelector("button").hidden = !canRetry;
  showPart(card, "wrong");
  $("spoken").textContent = `${card.pictureName}: ${problem}`;
}

function showAnswer(card, answer, tripMs) {
  const several = answer.task === "multi-label", [best] = answer.predictions, bars = card.querySelector(".bars");
  const headline = several ? answer.predictions.map((one) => one.class).join(", ") || "No label" : best.class;
  card.querySelector("h2").textContent = headline;
  card.querySelector("output").textContent = several ? "" : percent(best.score);
  bars.classList.toggle("several", several);
  bars.replaceChildren(...answer.predictions.map((prediction) => {
    const row = element("li"), track = element("div", "track"), label = element("span", "label", prediction.class);
    label.title = prediction.class;
    track.append(element("div", "fill"));
    const share = percent(prediction.score) + (several ? `, from ${percent(prediction.threshold)} on` : "");
    row.append(label, element("span", "share", share), track);
    return row;
  }));
  const { decode, queue, compute, total } = answer.timings_ms;
  const split = { decode, queue, compute, other: Math.max(0, total - decode - queue - compute) };
  card.querySelector(".latency b").textContent = ms(total) + " on the server";
  card.querySelector(".latency p span").textContent = `${ms(tripMs)} from here` + (answer.batch_size > 1 ? `, in a batch of ${answer.batch_size}` : "");
  STAGES.forEach((stage, index) => {
    card.querySelector(".split").children[index].style.flexGrow = split[stage] / total;
    card.querySelector(".legend").children[index].lastChild.textContent = `${stage} ${ms(split[stage])}`;
  });
  showPart(card, "answer");
  bars.offsetWidth; // a layout now, so that the widths set next are animated and not merely drawn
  answer.predictions.forEach((prediction, index) => {
    bars.children[index].querySelector(".fill").style.width = prediction.score * 100 + "%";
  });
  $("spoken").textContent = `${card.pictureName}: ${headline}${several ? "" : ", " + percent(best.score)}`;
}

// --- sending -----

function send(card) {
  if (info && card.picture.size > info.max_body_bytes) {
    showProblem(card, `This file has ${bytes(card.picture.size)}; the server takes ${bytes(info.max_body_bytes)} at most.`, "Scale the picture down first.");
    return;
  }
  showPart(card, "waiting");
  waiting.push(card);
  sendNext();
}

function sendNext() {
  while (!isAway && underWay < MOST_AT_ONCE && waiting.length) classify(waiting.shift());
}

async function classify(card) {
  underWay += 1;
  card.request = new AbortController();
  const began = performance.now(), type = card.picture.type;
  try {
    const reply = await fetch(route("predict"), {
      method: "POST", body: card.picture, signal: card.request.signal,
      headers: { "Content-Type": type.startsWith("image/") ? type : "application/octet-stream" },
    });
    const answer = await reply.json();
    if (reply.ok) showAnswer(card, answer, performance.now() - began);
    else showProblem(card, answer.error, answer.hint, reply.status >= 500);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (card.isConnected) waiting.unshift(card);
    showState("not reachable", "away");
  } finally {
    underWay -= 1;
    sendNext();
  }
}

function take(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  if (files.length && !pictures.length) pictures.push(files[0]); // the server says what is wrong with it
  for (const picture of pictures) send(addCard(picture, picture.name || "pasted picture"));
  if (pictures.length) showCommand(pictures[0].name || "PICTURE");
  if (pictures.length && matchMedia("(max-width: 46rem)").matches) $("results").scrollIntoView({ block: "start" });
}

for (const id of ["camera", "file"]) {
  $(id).addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
}
document.addEventListener("paste", (event) => take(event.clipboardData.files));
let depth = 0; // dragenter and dragleave come for every child that is crossed
const showOver = (is) => $("picker").classList.toggle("over", is);
document.addEventListener("dragenter", (event) => { event.preventDefault(); depth += 1; showOver(true); });
document.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); showOver(depth > 0); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  showOver(false);
  take(event.dataTransfer.files);
});
$("clear").addEventListener("click", () => { while ($("grid").firstElementChild) remove($("grid").firstElementChild); });

// --- around it -----

function showCommand(name) {
  const quoted = /^[\w.+-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`;
  $("curl").textContent = `curl --data-binary @${quoted} '${new URL(route("predict"), location.href)}'`;
}

$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
    $("copy").textContent = "Copied";
  } catch { // no clipboard without https: select it instead
    getSelection().selectAllChildren($("curl"));
    $("copy").textContent = "Selected";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
});

function showInfo() {
  document.title = `zoo · ${model || info.model}`;
  $("model").textContent = model || info.model;
  if (info.task === "multi-label") $("blank").textContent = "All labels whose scores reach their thresholds appear here, and where the milliseconds went.";
  const { resize, color_order } = info.preprocessing;
  const facts = {
    Artifact: info.artifact, Runs: info.backend, On: info.device, Precision: info.precision,
    Pictures: `${info.image_size} px, ${resize === "squash" ? "the whole picture" : "its centre"}` + (color_order === "RGB" ? "" : `, ${color_order}`),
    Classes: info.num_classes.toLocaleString("en"),
    Answers: info.task === "multi-label" ? "several labels a picture" : null,
    "Largest batch": info.max_batch_size, Instances: info.instances > 1 ? info.instances : null,
    Weights: info.random_weights ? "random: answers mean nothing" : null,
  };
  $("facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", "", name), element("dd", "", value));
    return pair;
  }));
  for (const card of $("grid").children) drawSeen(card);
}

function showState(text, className) {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = "state " + className;
  isAway = className === "away";
  $("away").hidden = !isAway;
  clearTimeout(nextLook);
  nextLook = setTimeout(watchReadiness, className === "ready" ? 10000 : 1500);
}

async function watchReadiness() {
  const mine = looks += 1; // an answer that an earlier look gets later is old
  let said = ["not reachable", "away"];
  try {
    const reply = await fetch("readyz", { signal: AbortSignal.timeout(5000) }), answer = await reply.json();
    if (!info) await showModel();
    said = reply.ok ? ["ready", "ready"] : [answer.error.replace(/\.$/, "").toLowerCase(), ""];
  } catch { /* the words above say it */ }
  if (mine !== looks) return;
  showState(...said);
  sendNext();
}
// Whether the machine has a network says nothing of a server on it, so the server is asked.
for (const event of ["offline", "online"]) addEventListener(event, watchReadiness);

function showExamples(examples) {
  const known = examples.every((example) => example.class !== null);
  $("told").textContent = known ? "Pictures the model has not seen in training:" : "Photographs to try; the model may know nothing like them:";
  $("thumbs").replaceChildren(...examples.map((example) => {
    const button = element("button"), image = element("img"), what = known ? `an example of ${example.class}` : example.title;
    button.type = "button";
    button.title = button.ariaLabel = `Classify ${what}`;
    image.src = example.url;
    image.alt = "";
    button.append(image);
    button.addEventListener("click", async () => {
      const url = new URL(example.url, location.href);
      const picture = await fetch(url).then((reply) => reply.blob()).catch(() => showState("not reachable", "away"));
      if (!picture) return;
      send(addCard(picture, what));
      $("curl").textContent = `curl -s '${url}' | curl --data-binary @- '${new URL(route("predict"), location.href)}'`;
    });
    return button;
  }));
  $("examples").hidden = !examples.length;
}

async function showModel() {
  info = await (await fetch(route("info"))).json();
  showInfo();
  showCommand("PICTURE");
  showExamples(await (await fetch(route("examples"))).json());
}

async function showModels() {
  const listed = await (await fetch("v2/repository/index", { method: "POST" })).json();
  const names = [...new Set(listed.filter((one) => one.state === "READY").map((one) => one.name))];
  $("chooser").hidden = names.length < 2;
  $("models").replaceChildren(...names.map((name) => new Option(name, name)));
}
$("models").addEventListener("change", async () => { model = $("models").value; await showModel(); });

showCommand("PICTURE");
watchReadiness();
showModels().catch(() => {}); // a single model needs no choice, and the state above tells of a server that is away
