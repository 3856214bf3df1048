"use strict";

const study = JSON.parse(document.getElementById("study").textContent);
const {settings} = study, timed = settings.protocol === "time";
const byId = id => document.getElementById(id);
const stage = byId("stage"), context = stage.getContext("2d");
const SLOWEST_FRAME = 2 * settings.down + 0.5;      // So that rounding to whole frames moves an exposure by no more than a step.
const MOST_LATE = 0.05;                             // Share of frames.
const BLANK = "#808080", NOTICE = 700, GAP = 200;   // Milliseconds.

/** Numbers in [0, 1) that a seed determines (mulberry32). */
function randomNumbers(seed) {
  return () => {
    seed = seed + 0x6D2B79F5 | 0;
    let t = Math.imul(seed ^ seed >>> 15, seed | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return ((t ^ t >>> 14) >>> 0) / 2 ** 32;
  };
}

function shuffled(items, random) {
  const out = [...items];
  for (let i = out.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [out[i], out[j]] = [out[j], out[i]];
  }
  return out;
}

/** A weighted up-down staircase (Kaernbach 1991): it hovers where up * P(wrong) = down * P(right). */
class Staircase {
  constructor() { this.level = settings.start; }
  answer(right) {
    const next = this.level + (right ? -settings.down : settings.up);
    this.level = Math.min(settings.high, Math.max(settings.low, next));
  }
}

/** Which images a person judges in each part: half of them real, none twice. */
function makePlan(model, random) {
  const real = shuffled(study.real, random), own = shuffled(study.fakes[model].images, random);
  const easy = study.qualifying.length ? [shuffled(study.qualifying, random)]
    : shuffled(study.fakes.map((fakes, i) => i === model ? own : shuffled(fakes.images, random)), random);
  const part = (count, sources) => shuffled(Array.from({length: count}, (_, i) => i % 2
    ? {kind: "real", image: real.pop()} : {kind: "fake", image: sources[i / 2 % sources.length].pop()}), random);
  return {practice: part(settings.practice, easy), qualification: part(settings.qualification, easy),
          blocks: Array.from({length: settings.blocks}, () => part(settings.images, [own]))};
}

/** Whether a person tells apart as many as are asked for, of real and of fake images. */
function isQualified(trials) {
  return ["real", "fake"].every(kind => {
    const of = trials.filter(trial => trial.phase === "qualification" && trial.kind === kind);
    return of.filter(trial => trial.answer === kind).length >= settings.pass * of.length;
  });
}

/** The mean over blocks of the commonest exposure; of several equally common, their mean. */
function modalExposure(trials) {
  const modes = [];
  for (let block = 0; block < settings.blocks; block++) {
    const counts = new Map();
    for (const {level} of trials.filter(trial => trial.block === block)) counts.set(level, (counts.get(level) ?? 0) + 1);
    const most = Math.max(...counts.values()), common = [...counts].filter(([, count]) => count === most);
    modes.push(common.reduce((sum, [level]) => sum + level, 0) / common.length);
  }
  return modes.reduce((sum, mode) => sum + mode, 0) / modes.length;
}

// ------------------------------------------------------------------------------------------ the display

function nextFrame() { return new Promise(requestAnimationFrame); }

/** How long a frame of this display takes, in milliseconds, and which share of frames comes late. */
async function measureDisplay(frames = 120) {
  const steps = [];
  let before;
  for (let i = 0; i < frames + 10; i++) {       // The first are those of a page that has just changed.
    const now = await nextFrame();
    if (i >= 10) steps.push(now - before);
    before = now;
  }
  const period = [...steps].sort((a, b) => a - b)[steps.length >> 1];
  return {period, late: steps.filter(step => step > 1.5 * period).length / steps.length};
}

/** Why exposures cannot be held on this display; empty if they can. */
function displayProblem({period, late}) {
  if (!(period >= 1.5)) return "This browser hides its clock, so exposure times cannot be held. Another browser may work.";
  if (period > SLOWEST_FRAME) return `This display shows a new frame every ${Math.round(period)} ms. The test needs one at least every ${Math.floor(SLOWEST_FRAME)} ms (50 Hz). Plugging in the power supply or switching off battery saving may help.`;
  if (late > MOST_LATE) return `${Math.round(100 * late)} % of the frames came late, so exposure times cannot be held. Closing other programs and tabs may help.`;
  return "";
}

/** Show things for given times, each from one frame to another; what comes next must be drawn when this returns. */
async function play(steps, period) {
  const times = [];
  let now = await nextFrame();
  for (const [draw, duration] of steps) {
    const start = now;
    draw();
    do now = await nextFrame(); while (now - start < duration - period / 2);
    times.push(now - start);
  }
  return times;
}

async function decode([, data]) {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], {type: "image/webp"}));
}

function sizeStage() {
  const room = Math.min(document.documentElement.clientWidth - 32, innerHeight * 0.6, 420);
  const zoom = room >= study.width ? Math.floor(room / study.width) : room / study.width, ratio = devicePixelRatio || 1;
  stage.style.width = `${study.width * zoom}px`;
  stage.width = Math.round(study.width * zoom * ratio);
  stage.height = Math.round(study.height * zoom * ratio);
  context.imageSmoothingQuality = "high";
  clear();
  return zoom;
}

function clear() {
  context.fillStyle = BLANK;
  context.fillRect(0, 0, stage.width, stage.height);
}

function draw(picture) { context.drawImage(picture, 0, 0, stage.width, stage.height); }

function drawNumber(number) {
  clear();
  context.fillStyle = "#fff";
  context.font = `${stage.height / 3}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(number, stage.width / 2, stage.height / 2);
}

// ------------------------------------------------------------------------------------------ what people do

class Stopped extends Error {}
class Late extends Error {}

let answer = null, stopping = false;        // What is called with an answer; whether the person wants to stop.

function give(kind) {
  if (!answer) return;
  const resolve = answer;
  answer = null;
  resolve(kind);
}

function show(id, focus) {
  for (const each of document.querySelectorAll("main > section")) each.hidden = each.id !== id;
  scrollTo(0, 0);
  byId(focus).focus({preventScroll: true});
}

function message(title, text, button) {
  byId("message-title").textContent = title;
  byId("message-text").textContent = text;
  byId("go-on").textContent = button;
  show("message", "message-title");
  return new Promise(resolve => { byId("go-on").onclick = resolve; });
}

async function ask() {
  byId("choices").dataset.open = "yes";
  byId("status").textContent = "Real or fake?";
  const start = performance.now(), kind = await new Promise(resolve => { answer = resolve; if (stopping) give(null); });
  byId("choices").dataset.open = "";
  if (stopping) throw new Stopped();
  return {answer: kind, seconds: Math.round(performance.now() - start) / 1000};
}

/** Show one image and take the answer.  -> a trial of the result */
async function judge({kind, image}, display, {level = null, feedback = false}) {
  const picture = await decode(image), trial = {image: image[0], kind};
  byId("status").textContent = "";
  if (level === null) draw(picture);
  else {
    const masks = await Promise.all(shuffled(study.masks, Math.random).slice(0, settings.masks).map(decode));
    const times = await play([...[3, 2, 1].map(n => [() => drawNumber(n), settings.countdown]), [() => draw(picture), level],
      ...masks.map(mask => [() => draw(mask), settings.mask])], display.period);
    clear();
    Object.assign(trial, {level, shown: Math.round(times[3] * 10) / 10, valid: Math.abs(times[3] - level) <= display.period});
    if (!trial.valid) {
      byId("status").textContent = "The display was late: this image does not count.";
      await play([[() => {}, 2 * NOTICE]], display.period);
      if (stopping) throw new Stopped();
      return {...trial, answer: null, seconds: null};
    }
  }
  Object.assign(trial, await ask());
  if (feedback) {
    byId("status").textContent = trial.answer === kind ? "✓ Right" : `✗ Wrong: it was ${kind}`;
    await play([[() => {}, NOTICE]], display.period);
  }
  await play([[clear, GAP]], display.period);
  picture.close();
  return trial;
}

async function judgePart(phase, images, display, trials, options = () => ({}), after = () => {}) {
  show("trial", "stage");
  for (const [i, image] of images.entries()) {
    byId("count").textContent = `Image ${i + 1} of ${images.length}`;
    byId("progress").max = images.length;
    byId("progress").value = i;
    const trial = {phase, ...await judge(image, display, options())};
    trials.push(trial);
    after(trial);
  }
}

/** Practice, qualification and test.  -> how it ended */
async function judgeAll(plan, display, trials) {
  const half = "Half of the images are real, half are fake.";
  const keys = "Press F or ← for fake, R or → for real, or the buttons.";
  if (plan.practice.length) {
    await message("Practice", `${plan.practice.length} images to get to know the task. You are told each time whether you were right. ${keys}`, "Begin");
    await judgePart("practice", plan.practice, display, trials, () => ({level: timed ? settings.start : null, feedback: true}));
  }
  if (plan.qualification.length) {
    await message("First part", `${plan.qualification.length} images, for as long as you like. ${half} You are not told whether you were right. The test follows if you can tell enough of them apart.`, "Begin");
    await judgePart("qualification", plan.qualification, display, trials);
    if (!isQualified(trials)) return "not qualified";
  }
  for (const [block, images] of plan.blocks.entries()) {
    const title = plan.blocks.length > 1 ? `Test, part ${block + 1} of ${plan.blocks.length}` : "Test";
    await message(title, `${images.length} images. ${half} ${timed ? "Each is shown for a moment only: shorter and shorter as long as you are right. Look at the middle." : "Take as long as you like; you are not told whether you were right."}${block ? " Rest before you go on, if you like." : ""}`, "Begin");
    const staircase = new Staircase();
    let late = 0;
    await judgePart("test", images, display, trials, () => timed ? {level: staircase.level, feedback: true} : {}, trial => {
      trial.block = block;
      if (trial.valid === false) late++;
      else if (timed) staircase.answer(trial.answer === trial.kind);
      if (late > settings.lost * images.length) throw new Late();
    });
  }
  return "complete";
}

const ENDINGS = {
  "complete": "Thank you: that was all.", "stopped": "You have stopped the test. What you did until then is in the results.",
  "not qualified": "Thank you. The test ends here for you: too few images were told apart to go on.",
  "display": "The test ends here: this display showed too many images for too long."};

function describeScore(trials) {
  const test = trials.filter(trial => trial.phase === "test" && trial.answer), wrong = test.filter(trial => trial.answer !== trial.kind).length;
  return timed ? ` You told real from fake in ${Math.round(modalExposure(test))} ms.` : ` You took ${wrong} of ${test.length} for what they were not.`;
}

function finish(result) {
  const text = JSON.stringify(result, null, 1), name = (result.person || result.session.slice(0, 8)).replace(/[^\w-]+/g, "-");
  byId("ending").textContent = ENDINGS[result.ended] + (result.ended === "complete" ? describeScore(result.trials) : "");
  byId("text").value = text;
  byId("download").download = `hype-${name}.json`;
  byId("download").href = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  byId("copy").onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {                   // Pages of plain http have no clipboard.
      byId("text").closest("details").open = true;
      byId("text").select();
      document.execCommand("copy");
    }
    byId("saved").textContent = "Copied.";
    removeEventListener("beforeunload", keep);
  };
  byId("download").onclick = () => {
    byId("saved").textContent = "Saved where your browser puts downloads.";
    removeEventListener("beforeunload", keep);
  };
  show("done", "ending");
}

function keep(event) { event.preventDefault(); }

async function start() {
  const zoom = sizeStage(), words = new URLSearchParams(location.hash.slice(1)), draws = crypto.getRandomValues(new Uint32Array(5));
  const seed = words.has("seed") ? Number(words.get("seed")) >>> 0 : draws[0], random = randomNumbers(seed);
  const model = Math.floor(random() * study.fakes.length), plan = makePlan(model, random), trials = [], started = new Date();
  show("checking", "checking");
  const display = await measureDisplay(), problem = timed ? displayProblem(display) : "";
  if (problem) {
    byId("problem").textContent = problem;
    show("refused", "refused-title");
    return;
  }
  addEventListener("beforeunload", keep);
  let ended;
  try {
    ended = await judgeAll(plan, display, trials);
  } catch (error) {
    if (!(error instanceof Stopped || error instanceof Late)) throw error;
    ended = error instanceof Stopped ? "stopped" : "display";
  }
  finish({i2i: "hype", format: 1, study: study.id, session: [...draws.slice(1)].map(n => n.toString(16).padStart(8, "0")).join(""),
          person: byId("person").value.trim(), model: study.fakes[model].name, real: study.real_name, reals: study.reals, settings, seed, started: started.toISOString(),
          finished: new Date().toISOString(), ended, trials,
          display: {period: Math.round(display.period * 1000) / 1000, late: Math.round(display.late * 1000) / 1000, zoom, ratio: devicePixelRatio,
                    width: innerWidth, height: innerHeight, browser: navigator.userAgent}});
}

byId("person").value = new URLSearchParams(location.hash.slice(1)).get("person") ?? "";
byId("start").onclick = start;
byId("again").onclick = start;
byId("fake").onclick = () => give("fake");
byId("real").onclick = () => give("real");
byId("stop").onclick = () => { stopping = true; give(null); };
addEventListener("resize", () => { if (byId("trial").hidden) sizeStage(); });
addEventListener("keydown", event => {
  const kind = {f: "fake", ArrowLeft: "fake", r: "real", ArrowRight: "real"}[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!kind || !answer || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  give(kind);
});
byId("needs-script").hidden = true;
byId("start").hidden = false;
