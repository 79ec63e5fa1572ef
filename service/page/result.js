// The card of one file: on its way, failed, or with its answer.

import { inSegments } from './api.js';
import { find, make } from './dom.js';
import { emoji, emotionOf } from './emotions.js';
import { showFacts } from './facts.js';
import { percent } from './format.js';
import { lanesOf, lanesSoFar } from './lanes.js';
import { setText } from './language.js';
import { sameOptions } from './options.js';
import { Bars, EmotionBox } from './scores.js';
import { segmentRows } from './segments.js';
import { describeProblem, problemSentence, showNotice } from './sentences.js';
import { reached, showSteps } from './states.js';
import { csvBlob, offerTakeaway, save, stem } from './takeaway.js';
import { clearTracks, growTracks, showTracks } from './tracks.js';

/** @typedef {import('./jobs.js').Job} Job */

/** Each is there in some states only. */
const BUTTONS = ['compute', 'cancel', 'try-again', 'use-segments'];

/** @type {Job | null} */
let shown = null;
/** The answer that is drawn, or the segments so far, so that each is drawn once. */
/** @type {import('./api.js').Answered | number | null} */
let drawn = null;

const emotionBox = new EmotionBox(find('emotion', HTMLElement));
const bars = new Bars(find('scores', HTMLElement));

/**
 * Connect the buttons, once.
 *
 * @param {object} on
 * @param {(job: Job) => void} on.compute
 * @param {(job: Job) => void} on.cancel
 * @param {(job: Job) => void} on.segment called to have the recording answered in segments instead
 */
export function startResult({ compute, cancel, segment }) {
  for (const id of ['compute', 'try-again']) {
    find(id, HTMLButtonElement).addEventListener('click', () => shown && compute(shown));
  }
  find('cancel', HTMLButtonElement).addEventListener('click', () => shown && cancel(shown));
  find('use-segments', HTMLButtonElement).addEventListener('click', () => shown && segment(shown));
  find('segments-csv', HTMLButtonElement).addEventListener('click', () => {
    if (shown) {
      save(`${stem(shown.name)}.segments.csv`, csvBlob(segmentRows(segmentsOf(shown))));
    }
  });
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
  if (!job) {
    clearTracks();
    drawn = null;
    return;
  }
  const focused = document.activeElement;
  find('result-name', HTMLElement).textContent = job.name;
  const done = job.state === 'done' ? job.answered : null;
  find('on-its-way', HTMLElement).hidden = !job.active;
  const some = done === null && job.segments.length > 0;
  find('answer', HTMLElement).hidden = !done && !some;
  for (const part of ['overview', 'below']) {
    find(part, HTMLElement).hidden = !done;
  }
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
  keepFocus(focused, job.active ? 'cancel' : done ? 'compute' : 'try-again');
  const wanted = done ?? (some ? job.segments.length : null);
  if (wanted === drawn && !another) {
    return;
  }
  if (another || wanted === null) {
    clearTracks();
  }
  drawn = wanted;
  if (done) {
    showAnswer(job, done);
  } else if (some) {
    find('channel-choice', HTMLElement).hidden = find('stored-why', HTMLElement).hidden = true;
    growTracks(lanesSoFar(job.segments), Math.max(job.duration ?? 0, reached(job) ?? 0));
  }
}

/**
 * A button that was pressed goes with the state that it belongs to; the focus moves on to the button of the next state.
 *
 * @param {Element | null} focused before
 * @param {string} next
 */
function keepFocus(focused, next) {
  if (BUTTONS.includes(focused?.id ?? '') && !focused?.checkVisibility()) {
    find(next, HTMLButtonElement).focus({ preventScroll: true });
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
    const { label, score } = answer.channels?.find((each) => each.label !== null) ?? answer;
    if (label) {
      const emotion = { emotion: emotionOf(label) };
      setText(place, 'result.announce', { name: job.name, emotion, score: percent(score ?? 0) });
    } else {
      setText(place, 'result.announce.nobody', { name: job.name });
    }
  } else if (job.state === 'failed' && job.problem) {
    setText(place, 'result.failed', { name: job.name, reason: problemSentence(job.problem) });
  }
}

/** @param {Job} job */
function showFailure(job) {
  const place = find('failure', HTMLElement);
  find('use-segments', HTMLElement).hidden = job.problem?.code !== 'audio_too_long' || inSegments(job.options);
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
    ...(channels ?? []).map(({ channel, label }) => {
      const input = make('input', { type: 'radio', name: 'shown-channel', value: channel });
      input.checked = channel === 0;
      input.addEventListener('change', () => showChannel(job, answered, channel));
      const face = make(
        'span',
        { class: 'emoji', 'aria-hidden': 'true' },
        label === null ? '🔇' : emoji(emotionOf(label)),
      );
      const name = make('span', { text: 'result.channel', values: { channel } });
      return make('label', {}, input, make('span', {}, face, ' ', name));
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
  const lanes = lanesOf(answer);
  const speech = (split ? split.speech : answer.audio.speech) ?? null;
  const asked = Object.fromEntries(job.options);
  const only = /^\d+$/.test(asked.channels ?? '') ? Number(asked.channels) : null;
  find('silent', HTMLElement).hidden = speech !== null || lanes !== null;
  emotionBox.show(result);
  bars.make(result.scores.toSorted((one, other) => other.score - one.score));
  const speechSeconds = (split ?? answer.audio).speech_seconds ?? null;
  showFacts(job, answered, { speech, speechSeconds });
  offerTakeaway({ name: job.name, answered, result, channel: split ? number : null });
  showTracks({
    blob: job.blob,
    audio: answer.audio,
    result,
    channel: split ? number : only,
    scored: asked.trim === 'false' || lanes ? null : speech,
    lanes,
  });
}

/**
 * All segments of a job, those of its answer or those so far, in the order of time.
 *
 * @param {Job} job
 */
function segmentsOf({ answered, segments }) {
  const all = (answered && lanesOf(answered.answer)?.flatMap((lane) => lane.segments)) ?? segments;
  return all.toSorted((one, other) => one.end - other.end);
}
