// Entry point: holds the jobs and the selected one, and connects the parts of the page.

import { askForKey, hasKey, onKeyChange } from './api/api-key.js';
import { servedModel } from './api/http-api.js';
import { find, showNotice } from './common/dom.js';
import { setModelLabels } from './common/emotions.js';
import { startTheme } from './common/theme.js';
import { showSnippets, startSnippets } from './export/code-snippets.js';
import { startResultFiles } from './export/result-files.js';
import { rewriteEmotionNames, setText, startLanguage, switchLanguage } from './i18n/language.js';
import { startExamples } from './input/examples.js';
import { startFileInput } from './input/file-input.js';
import { chooseSegments, chosenOptions, sameOptions, startOptionsForm } from './input/options.js';
import { startRecorder } from './input/recorder.js';
import { Job, JobQueue } from './jobs.js';
import { isLiveOpen, liveOptions, startLive } from './live/live.js';
import { showTable, startTable } from './results/file-table.js';
import { announce, showResult, startResult } from './results/result-card.js';
import { startTracks } from './tracks/tracks.js';

/** @type {Job[]} */
let jobs = [];
/** @type {Job | null} */
let selected = null;
const queue = new JobQueue(chosenOptions);

/** @param {Job} job */
function addJob(job) {
  job.addEventListener('change', () => {
    if (!job.active) {
      announce(job);
    }
    scheduleDraw();
  });
  jobs.push(job);
}

/** @param {File[]} files */
function addFiles(files) {
  const added = files.map((file) => new Job(file.name, file));
  for (const job of added) {
    addJob(job);
    queue.add(job);
  }
  select(added[0] ?? selected);
}

/** @param {Job | null} job */
function select(job) {
  selected = job;
  scheduleDraw();
}

/** @param {Job} job */
function compute(job) {
  // With unchanged options, the user wants a new computation and not the cached answer.
  job.bypassCache = !job.stored && sameOptions(job.options, chosenOptions());
  queue.add(job);
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

let drawScheduled = false;

/** Draw in the next frame, once for all changes until then. */
function scheduleDraw() {
  if (!drawScheduled) {
    drawScheduled = true;
    requestAnimationFrame(() => {
      drawScheduled = false;
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

/** The options of files that apply to live streams as well. */
function languageOption() {
  return chosenOptions().filter(([name]) => name === 'label_language');
}

/** Show the served model; while it is loading or the service is unreachable, try again. */
async function showModel() {
  const notice = find('notice', HTMLElement);
  const enter = find('enter-key', HTMLButtonElement);
  try {
    const model = await servedModel();
    setModelLabels(model.labels);
    rewriteEmotionNames();
    const { id, dtype, device } = model;
    const place = find('model', HTMLElement);
    setText(place, 'model.about', { id, dtype, device });
    place.hidden = false;
    enter.hidden = true;
    showNotice(notice, model.demonstration ? 'model.demonstration' : null);
  } catch (error) {
    const { status, retryAfter } = /** @type {import('./api/problem.js').Problem} */ (error);
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
startResultFiles();
startSnippets();
startTable({ jobs: () => jobs, redraw: scheduleDraw, clear });
startResult({
  compute,
  cancel: (job) => job.cancel(),
  segment(job) {
    chooseSegments();
    compute(job);
  },
});
startOptionsForm(scheduleDraw);
startFileInput(addFiles);
startRecorder((file) => addFiles([file]));
startLive({
  fileOptions: () => Object.fromEntries(languageOption()),
  onChange: scheduleDraw,
});
startExamples((name, blob, answer, options) => {
  let job = jobs.find((each) => each.name === name && each.blob.size === blob.size);
  if (!job) {
    job = new Job(name, blob);
    addJob(job);
    job.setStoredAnswer(answer, options);
  } else if (job.state === 'failed' || job.state === 'cancelled') {
    job.setStoredAnswer(answer, options);
  }
  select(job);
});
find('language', HTMLButtonElement).addEventListener('click', switchLanguage);
find('enter-key', HTMLButtonElement).addEventListener('click', askForKey);
onKeyChange(() => {
  showModel();
  scheduleDraw();
});
showModel();
draw();
document.documentElement.dataset.ready = 'true';
