// The card of one file: on its way, failed, or with its answer.

import { find, make } from './dom.js';
import { emotionOf } from './emotions.js';
import { showFacts } from './facts.js';
import { setText } from './language.js';
import { sameOptions } from './options.js';
import { describeProblem, problemSentence, showNotice } from './problems.js';
import { showScores } from './scores.js';
import { percent } from './segments.js';
import { showSteps } from './states.js';
import { offerTakeaway } from './takeaway.js';
import { clearTracks, showTracks } from './tracks.js';

/** @typedef {import('./jobs.js').Job} Job */

/** @type {Job | null} */
let shown = null;
/** The answer that is drawn, so that it is drawn once. */
/** @type {import('./api.js').Answered | null} */
let drawn = null;

/**
 * Connect the buttons, once.
 *
 * @param {object} on
 * @param {(job: Job) => void} on.compute
 * @param {(job: Job) => void} on.cancel
 */
export function startResult({ compute, cancel }) {
  for (const id of ['compute', 'try-again']) {
    find(id, HTMLButtonElement).addEventListener('click', () => shown && compute(shown));
  }
  find('cancel', HTMLButtonElement).addEventListener('click', () => shown && cancel(shown));
}

/**
 * Show a job as it is now.
 *
 * @param {Job | null} job
 * @param {import('./api.js').Options} options as they are chosen now
 */
export function showResult(job, options) {
  const another = job !== shown;
  shown = job;
  find('result', HTMLElement).hidden = job === null;
  document.body.classList.toggle('empty', job === null);
  if (!job) {
    clearTracks();
    drawn = null;
    return;
  }
  find('result-name', HTMLElement).textContent = job.name;
  const done = job.state === 'done' ? job.answered : null;
  find('on-its-way', HTMLElement).hidden = !job.active;
  find('answer', HTMLElement).hidden = !done;
  find('gone-wrong', HTMLElement).hidden = job.active || done !== null;
  find('stored', HTMLElement).hidden = !(done && job.stored);
  find('cached', HTMLElement).hidden = !done?.cached;
  const compute = find('compute', HTMLButtonElement);
  compute.hidden = !done;
  setText(compute, job.stored ? 'result.compute' : 'result.again');
  find('options-changed', HTMLElement).hidden = !done || sameOptions(options, job.options);
  if (job.active) {
    showSteps(job);
  }
  if (!job.active && !done) {
    showFailure(job);
  }
  if (done !== drawn || another) {
    drawn = done;
    if (done) {
      showAnswer(job, done);
    } else {
      clearTracks();
    }
  }
}

/**
 * Say to screen readers what has become of a job.
 *
 * @param {Job} job
 */
export function announce(job) {
  const place = find('announcement', HTMLElement);
  const answer = job.answered?.answer;
  if (job.state === 'done' && answer) {
    const { label, score } = answer.channels?.[0] ?? answer;
    const emotion = { emotion: emotionOf(label ?? '') };
    setText(place, 'result.announce', { name: job.name, emotion, score: percent(score ?? 0) });
  } else if (job.state === 'failed' && job.problem) {
    setText(place, 'result.failed', { name: job.name, reason: problemSentence(job.problem) });
  }
}

/** @param {Job} job */
function showFailure(job) {
  const place = find('failure', HTMLElement);
  if (job.state === 'cancelled') {
    place.replaceChildren(make('p', { class: 'sentence', text: 'state.cancelled' }));
  } else if (job.problem) {
    place.replaceChildren(describeProblem(job.problem));
  }
}

/**
 * @param {Job} job
 * @param {import('./api.js').Answered} answered
 */
function showAnswer(job, answered) {
  const { channels, model } = answered.answer;
  find('result-request', HTMLElement).hidden = job.stored;
  setText(find('result-request', HTMLElement), 'result.request', { id: answered.answer.id });
  const { window, hop } = Object.fromEntries(job.options);
  const { id, dtype, device } = model;
  showNotice(find('stored-why', HTMLElement), job.stored ? 'result.stored.why' : null, {
    id,
    dtype,
    device,
    window,
    hop,
  });
  const choice = find('channel-choice', HTMLElement);
  choice.hidden = !channels;
  find('channel-buttons', HTMLElement).replaceChildren(
    ...(channels ?? []).map(({ channel }) => {
      const input = make('input', { type: 'radio', name: 'shown-channel', value: channel });
      input.checked = channel === 0;
      input.addEventListener('change', () => showChannel(job, answered, channel));
      return make('label', {}, input, make('span', { text: 'result.channel', values: { channel } }));
    }),
  );
  showChannel(job, answered, 0);
}

/**
 * @param {Job} job
 * @param {import('./api.js').Answered} answered
 * @param {number} number of the channel, where they were split
 */
function showChannel(job, answered, number) {
  const { answer } = answered;
  const split = answer.channels?.[number];
  const result = split ?? /** @type {import('./api.js').Result} */ (answer);
  const speech = (split ? split.speech : answer.audio.speech) ?? null;
  const asked = Object.fromEntries(job.options);
  const only = /^\d+$/.test(asked.channels ?? '') ? Number(asked.channels) : null;
  find('silent', HTMLElement).hidden = speech !== null;
  showScores(result);
  showFacts(job, answered, speech);
  offerTakeaway({ name: job.name, answered, result });
  showTracks({
    blob: job.blob,
    audio: answer.audio,
    result,
    channel: split ? number : only,
    scored: asked.trim === 'false' ? null : speech,
  });
}
