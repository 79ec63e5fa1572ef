// What an answer took, and what gave it.

import { inSegments } from './api.js';
import { find, make } from './dom.js';
import { length, milliseconds } from './format.js';

const STAGES = /** @type {const} */ (['decode', 'queue', 'preprocess', 'inference']);

/** @typedef {[import('./language.js').Key, import('./language.js').Key | null, import('./language.js').Values | string]} Fact */

/**
 * @param {import('./jobs.js').Job} job that is done
 * @param {import('./api.js').Answered} answered
 * @param {object} found in the channel on show
 * @param {import('./api.js').Stretch | null} found.speech
 * @param {number | null} found.speechSeconds where segments were asked for
 */
export function showFacts(job, { answer, timings, cached }, { speech, speechSeconds }) {
  const { audio, model } = answer;
  /** @type {Fact[]} */
  const facts = [];
  showStages(timings);
  find('facts-untimed', HTMLElement).hidden = !job.stored;
  // Segments go through the stages side by side, so that their sum is no time that passed.
  const whole = timings && !inSegments(job.options);
  const service = whole ? STAGES.reduce((sum, stage) => sum + timings[stage], 0) : null;
  if (service !== null) {
    facts.push(['facts.service', null, milliseconds(service)]);
  }
  if (!job.stored) {
    facts.push(['facts.wall', null, milliseconds(job.wall)]);
  }
  if (!job.stored && !cached) {
    const factor = (service ?? job.wall) / 1000 / audio.duration;
    const values = { factor: factor.toPrecision(2), times: Math.round(1 / factor) };
    facts.push(['facts.factor', factor < 0.5 ? 'facts.factor.value' : 'facts.factor.slow', values]);
  }
  facts.push([
    'facts.audio',
    'facts.audio.value',
    { duration: length(audio.duration), rate: audio.sampling_rate, channels: audio.channels },
  ]);
  if (speech) {
    const values = { start: speech.start.toFixed(2), end: speech.end.toFixed(2) };
    facts.push(['facts.speech', 'facts.speech.value', values]);
  }
  if (speechSeconds !== null) {
    facts.push(['facts.speech', null, length(speechSeconds)]);
  }
  if (audio.narrow_band) {
    facts.push(['facts.band', 'facts.band.narrow', {}]);
  }
  facts.push([
    'facts.model',
    model.demonstration ? 'facts.model.demonstration' : 'facts.model.value',
    { id: model.id },
  ]);
  facts.push(['facts.revision', null, model.revision]);
  facts.push(['facts.runs', 'facts.runs.value', { dtype: model.dtype, device: model.device, backend: model.backend }]);
  const rows = facts.map(([name, text, value]) =>
    make(
      'div',
      {},
      make('dt', { text: name }),
      typeof value === 'string' ? make('dd', {}, value) : make('dd', { text: text ?? undefined, values: value }),
    ),
  );
  find('facts', HTMLElement).replaceChildren(...rows);
}

/** @param {import('./api.js').Timings | null} timings */
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
        make('span', { class: 'name', text: `facts.${stage}` }),
        make('span', { class: 'bar', 'aria-hidden': 'true' }, fill),
        make('span', { class: 'value' }, milliseconds(timings[stage])),
      );
    }),
  );
}
