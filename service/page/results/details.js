// Processing times of an answer, and facts about its audio and its model.

import { asksForSegments } from '../api/http-api.js';
import { find, make } from '../common/dom.js';
import { durationText, milliseconds } from '../common/format.js';

const STAGES = /** @type {const} */ (['decode', 'queue', 'preprocess', 'inference']);

/** @typedef {import('../i18n/language.js').Key} Key */
/** @typedef {string | {text: Key, values?: import('../i18n/language.js').Values}} DetailValue text, or a message */

/**
 * @param {import('../jobs.js').Job} job that is done
 * @param {import('../api/http-api.js').Answered} answered
 * @param {object} channel the selected one
 * @param {import('../api/http-api.js').Interval | null} channel.speech
 * @param {number | null} channel.speechSeconds null unless segments were asked for
 */
export function showDetails(job, { answer, timings, cached }, { speech, speechSeconds }) {
  const { audio, model } = answer;
  /** @type {[Key, DetailValue][]} */
  const details = [];
  showStages(timings);
  find('details-untimed', HTMLElement).hidden = !job.stored;
  // Segments pass through the stages in parallel, so the sum of their times is not an elapsed time.
  const sequential = timings && !asksForSegments(job.options);
  const service = sequential ? STAGES.reduce((sum, stage) => sum + timings[stage], 0) : null;
  if (service !== null) {
    details.push(['details.service', milliseconds(service)]);
  }
  if (!job.stored) {
    details.push(['details.round_trip', milliseconds(job.roundTrip)]);
  }
  if (!job.stored && !cached) {
    const ratio = (service ?? job.roundTrip) / 1000 / audio.duration;
    const factor = ratio.toPrecision(2);
    const values = { factor, times: Math.round(1 / ratio) };
    details.push(['details.factor', ratio < 0.5 ? { text: 'details.factor.value', values } : factor]);
  }
  const { duration, sampling_rate: rate, channels } = audio;
  const values = { duration: durationText(duration), rate, channels };
  details.push(['details.audio', { text: 'details.audio.value', values }]);
  if (audio.taken_channel !== undefined) {
    const channel = audio.taken_channel;
    details.push(['details.taken_channel', { text: 'details.taken_channel.value', values: { channel } }]);
  }
  if (speech) {
    const ends = { start: speech.start.toFixed(2), end: speech.end.toFixed(2) };
    details.push(['details.speech', { text: 'details.speech.value', values: ends }]);
  }
  if (speechSeconds !== null) {
    details.push(['details.speech', durationText(speechSeconds)]);
  }
  if (audio.narrow_band) {
    details.push(['details.band', { text: 'details.band.narrow' }]);
  }
  if (audio.truncated) {
    details.push(['details.length', { text: 'details.length.truncated' }]);
  }
  if (audio.unread_bytes) {
    details.push(['details.length', { text: 'details.length.unread', values: { bytes: audio.unread_bytes } }]);
  }
  const { id, dtype, device, backend, revision } = model;
  details.push(
    ['details.model', model.demonstration ? { text: 'details.model.demonstration', values: { id } } : id],
    ['details.revision', revision],
    ['details.runs', { text: 'details.runs.value', values: { dtype, device, backend } }],
  );
  const rows = details.map(([name, value]) =>
    make('div', {}, make('dt', { text: name }), typeof value === 'string' ? make('dd', {}, value) : make('dd', value)),
  );
  find('details', HTMLElement).replaceChildren(...rows);
}

/** @param {import('../api/http-api.js').Timings | null} timings */
function showStages(timings) {
  const list = find('stages', HTMLElement);
  list.hidden = timings === null;
  if (!timings) {
    return;
  }
  const longest = Math.max(...STAGES.map((stage) => timings[stage]), 1e-9);
  list.replaceChildren(
    ...STAGES.map((stage) => {
      const fill = make('span', { class: 'fill' });
      fill.style.setProperty('width', `${((100 * timings[stage]) / longest).toFixed(2)}%`);
      return make(
        'li',
        {},
        make('span', { class: 'name', text: `details.${stage}` }),
        make('span', { class: 'bar', 'aria-hidden': 'true' }, fill),
        make('span', { class: 'value' }, milliseconds(timings[stage])),
      );
    }),
  );
}
