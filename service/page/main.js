// The page: which files there are, which one is shown, and who tells whom.

import { servedModel } from './api.js';
import { find } from './dom.js';
import { learnLabels } from './emotions.js';
import { startExamples } from './examples.js';
import { startFiles } from './files.js';
import { Job, Runner } from './jobs.js';
import { askForKey, followKey, hasKey } from './key.js';
import { renameEmotions, setText, startLanguage, switchLanguage } from './language.js';
import { isLiveOpen, liveOptions, startLive } from './live.js';
import { chooseSegments, chosenOptions, sameOptions, startOptions } from './options.js';
import { startRecorder } from './recorder.js';
import { announce, showResult, startResult } from './result.js';
import { showNotice } from './sentences.js';
import { showSnippets, startSnippets } from './snippets.js';
import { showTable, startTable } from './table.js';
import { startTakeaway } from './takeaway.js';
import { startTheme } from './theme.js';
import { startTracks } from './tracks.js';

/** @type {Job[]} */
let jobs = [];
/** @type {Job | null} */
let selected = null;
const runner = new Runner(chosenOptions);

/** @param {Job} job */
function addJob(job) {
  job.addEventListener('change', () => {
    if (!job.active) {
      announce(job);
    }
    drawSoon();
  });
  jobs.push(job);
}

/** @param {File[]} files */
function takeFiles(files) {
  const added = files.map((file) => new Job(file.name, file));
  for (const job of added) {
    addJob(job);
    runner.add(job);
  }
  select(added[0] ?? selected);
}

/** @param {Job | null} job */
function select(job) {
  selected = job;
  drawSoon();
}

/** @param {Job} job */
function compute(job) {
  // To compute means to compute: the same question would be answered from the cache.
  job.anew = !job.stored && sameOptions(job.options, chosenOptions());
  runner.add(job);
}

/** @param {Job} job */
function remove(job) {
  if (job.active) {
    job.cancel();
    return;
  }
  jobs = jobs.filter((each) => each !== job);
  select(selected === job ? (jobs[0] ?? null) : selected);
}

function clear() {
  for (const job of jobs) {
    job.cancel();
  }
  jobs = [];
  select(null);
}

let drawing = false;

/** Draw once, however many changes there are until the next frame. */
function drawSoon() {
  if (!drawing) {
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      draw();
    });
  }
}

function draw() {
  const options = chosenOptions();
  document.body.classList.toggle('empty', selected === null && !isLiveOpen());
  showTable(jobs, selected, { select, remove });
  showResult(selected, options);
  const live = isLiveOpen() ? [...liveOptions(), ...languageOption()] : null;
  showSnippets({ name: selected?.name ?? 'speech.wav', options, live, key: hasKey() });
}

/** What live streams take from the options of files. */
function languageOption() {
  return chosenOptions().filter(([name]) => name === 'label_language');
}

/** Show which model answers, as soon as it does. */
async function showModel() {
  const notice = find('notice', HTMLElement);
  const enter = find('enter-key', HTMLButtonElement);
  try {
    const model = await servedModel();
    learnLabels(model.labels);
    renameEmotions();
    const { id, dtype, device } = model;
    const place = find('model', HTMLElement);
    setText(place, 'model.about', { id, dtype, device });
    place.hidden = false;
    enter.hidden = true;
    showNotice(notice, model.demonstration ? 'model.demonstration' : null);
  } catch (error) {
    const { status, retryAfter } = /** @type {import('./problem.js').Problem} */ (error);
    enter.hidden = status !== 401;
    showNotice(notice, status === 401 ? 'model.key' : status === 503 ? 'model.loading' : 'model.unreachable');
    if (status !== 401) {
      setTimeout(showModel, 1000 * (retryAfter ?? 3));
    }
  }
}

startLanguage();
startTheme();
startTracks();
startTakeaway();
startSnippets();
startTable({ jobs: () => jobs, redraw: drawSoon, clear });
startResult({
  compute,
  cancel: (job) => job.cancel(),
  segment(job) {
    chooseSegments();
    compute(job);
  },
});
startOptions(drawSoon);
startFiles(takeFiles);
startRecorder((file) => takeFiles([file]));
startLive({
  wishes: () => Object.fromEntries(languageOption()),
  changed: drawSoon,
});
startExamples((name, blob, answer, options) => {
  let job = jobs.find((each) => each.name === name && each.blob.size === blob.size);
  if (!job) {
    job = new Job(name, blob);
    addJob(job);
    job.takeStored(answer, options);
  } else if (job.state === 'failed' || job.state === 'cancelled') {
    job.takeStored(answer, options);
  }
  select(job);
});
find('language', HTMLButtonElement).addEventListener('click', switchLanguage);
find('enter-key', HTMLButtonElement).addEventListener('click', askForKey);
followKey(() => {
  showModel();
  drawSoon();
});
showModel();
draw();
document.documentElement.dataset.ready = 'true';
