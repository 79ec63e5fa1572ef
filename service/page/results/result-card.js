// The card of the selected file: its progress, its failure or its answer.

import { asksForSegments } from '../api/http-api.js';
import { download, find, make, showNotice } from '../common/dom.js';
import { EmotionBox, emojiElement, ScoreBars } from '../common/emotion-scores.js';
import { emotionOf, sortedByScore } from '../common/emotions.js';
import { fileStem, percent } from '../common/format.js';
import { csvBlob, segmentRows } from '../export/csv.js';
import { showResultFiles } from '../export/result-files.js';
import { setText } from '../i18n/language.js';
import { problemElement, problemSentence } from '../i18n/problem-text.js';
import { sameOptions } from '../input/options.js';
import { groupByChannel, lanesOf, segmentsInOrder } from '../tracks/segment-lanes.js';
import { clearTracks, showPartialTracks, showTracks } from '../tracks/tracks.js';
import { showDetails } from './details.js';
import { segmentsEnd, showSteps } from './job-state.js';

/** @typedef {import('../jobs.js').Job} Job */

/** Buttons that are visible in some states only. */
const BUTTONS = ['compute', 'cancel', 'try-again', 'use-segments'];

/** @type {Job | null} */
let shown = null;
/** @type {import('../api/http-api.js').Answered | number | null} the answer that is drawn, or the number of segments so far */
let drawn = null;

const emotionBox = new EmotionBox(find('emotion', HTMLElement));
const scoreBars = new ScoreBars(find('scores', HTMLElement));

/**
 * Connect the buttons, once.
 *
 * @param {object} on
 * @param {(job: Job) => void} on.compute
 * @param {(job: Job) => void} on.cancel
 * @param {(job: Job) => void} on.segment called to analyse the recording in segments instead
 */
export function startResult({ compute, cancel, segment }) {
  for (const id of ['compute', 'try-again']) {
    find(id, HTMLButtonElement).addEventListener('click', () => shown && compute(shown));
  }
  find('cancel', HTMLButtonElement).addEventListener('click', () => shown && cancel(shown));
  find('use-segments', HTMLButtonElement).addEventListener('click', () => shown && segment(shown));
  find('segments-csv', HTMLButtonElement).addEventListener('click', () => {
    if (shown) {
      download(`${fileStem(shown.name)}.segments.csv`, csvBlob(segmentRows(segmentsOf(shown))));
    }
  });
}

/**
 * Show the current state of a job.
 *
 * @param {Job | null} job
 * @param {import('../api/http-api.js').Options} options the chosen ones
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
  find('job-progress', HTMLElement).hidden = !job.active;
  const partial = done === null && job.segments.length > 0;
  find('answer', HTMLElement).hidden = !done && !partial;
  for (const part of ['overview', 'result-footer']) {
    find(part, HTMLElement).hidden = !done;
  }
  find('job-failure', HTMLElement).hidden = job.active || done !== null;
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
  moveFocus(focused, job.active ? 'cancel' : done ? 'compute' : 'try-again');
  const wanted = done ?? (partial ? job.segments.length : null);
  if (wanted === drawn && !another) {
    return;
  }
  if (another || wanted === null) {
    clearTracks();
  }
  drawn = wanted;
  if (done) {
    showAnswer(job, done);
  } else if (partial) {
    find('channel-choice', HTMLElement).hidden = find('stored-hint', HTMLElement).hidden = true;
    showPartialTracks(groupByChannel(job.segments), Math.max(job.duration ?? 0, segmentsEnd(job) ?? 0));
  }
}

/**
 * If the focused button is hidden in the new state, move the focus to the button of that state.
 *
 * @param {Element | null} focused before the change
 * @param {string} next id of the button of the new state
 */
function moveFocus(focused, next) {
  if (BUTTONS.includes(focused?.id ?? '') && !focused?.checkVisibility()) {
    find(next, HTMLButtonElement).focus({ preventScroll: true });
  }
}

/**
 * Announce the outcome of a job to screen readers.
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
      setText(place, 'result.announce.no_speech', { name: job.name });
    }
  } else if (job.state === 'failed' && job.problem) {
    setText(place, 'result.failed', { name: job.name, reason: problemSentence(job.problem) });
  }
}

/** @param {Job} job */
function showFailure(job) {
  const place = find('failure', HTMLElement);
  find('use-segments', HTMLElement).hidden = job.problem?.code !== 'audio_too_long' || asksForSegments(job.options);
  if (job.state === 'cancelled') {
    place.replaceChildren(make('p', { class: 'sentence', text: 'state.cancelled' }));
  } else if (job.problem) {
    place.replaceChildren(problemElement(job.problem));
  }
}

/**
 * @param {Job} job
 * @param {import('../api/http-api.js').Answered} answered
 */
function showAnswer(job, answered) {
  const { channels, model } = answered.answer;
  find('result-request', HTMLElement).hidden = job.stored;
  setText(find('result-request', HTMLElement), 'result.request', { id: answered.answer.id });
  const { window, hop } = Object.fromEntries(job.options);
  const { id, dtype, device } = model;
  showNotice(find('stored-hint', HTMLElement), job.stored ? 'result.stored.hint' : null, {
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
      const symbol = emojiElement(label === null ? null : emotionOf(label));
      const name = make('span', { text: 'result.channel', values: { channel } });
      return make('label', {}, input, make('span', {}, symbol, ' ', name));
    }),
  );
  showChannel(job, answered, 0);
}

/**
 * @param {Job} job
 * @param {import('../api/http-api.js').Answered} answered
 * @param {number} number of the channel, where they were split
 */
function showChannel(job, answered, number) {
  const { answer } = answered;
  const split = answer.channels?.[number];
  const result = split ?? /** @type {import('../api/http-api.js').Result} */ (answer);
  const lanes = lanesOf(answer);
  const speech = (split ? split.speech : answer.audio.speech) ?? null;
  const { channels, trim } = Object.fromEntries(job.options);
  const chosenChannel = /^\d+$/.test(channels ?? '') ? Number(channels) : null;
  find('silent', HTMLElement).hidden = speech !== null || lanes !== null;
  emotionBox.show(result);
  scoreBars.create(sortedByScore(result.scores));
  const speechSeconds = (split ?? answer.audio).speech_seconds ?? null;
  showDetails(job, answered, { speech, speechSeconds });
  showResultFiles({ name: job.name, answered, result, channel: split ? number : null });
  showTracks({
    blob: job.blob,
    audio: answer.audio,
    result,
    channel: split ? number : chosenChannel,
    scored: trim === 'false' || lanes ? null : speech,
    lanes,
  });
}

/**
 * All segments of a job in the order of time: those of its answer, or those received so far.
 *
 * @param {Job} job
 */
function segmentsOf({ answered, segments }) {
  return segmentsInOrder((answered && lanesOf(answered.answer)) ?? groupByChannel(segments));
}
