// The state of a job as a message and as progress steps.

import { find } from '../common/dom.js';
import { clock, fileSize } from '../common/format.js';
import { setText } from '../i18n/language.js';
import { problemMessage } from '../i18n/problem-text.js';

const STEPS = ['upload', 'queue', 'model'];
const STEP_OF = /** @type {Record<string, number>} */ ({
  pending: -1,
  busy: -1,
  uploading: 0,
  received: 1,
  decoding: 1,
  queued: 1,
  running: 2,
});

/**
 * The message for the state of a job.
 *
 * @param {import('../jobs.js').Job} job
 * @returns {{key: import('../i18n/language.js').Key, values: import('../i18n/language.js').Values}}
 */
export function stateMessage(job) {
  if (job.state === 'uploading') {
    return {
      key: 'state.uploading',
      values: { percent: `${Math.round(100 * job.uploaded)} %`, size: fileSize(job.blob.size) },
    };
  }
  if (job.state === 'busy' && job.problem) {
    return { key: 'state.busy', values: { reason: problemMessage(job.problem), seconds: job.retryIn } };
  }
  if (job.state === 'queued' && job.ahead) {
    const { clips, audio_seconds, wait } = job.ahead;
    const values = { clips, seconds: audio_seconds.toFixed(0), wait: (wait ?? 0).toFixed(1) };
    return { key: wait === null ? 'state.queued' : 'state.queued.wait', values };
  }
  if (job.state === 'queued') {
    return { key: 'step.queue', values: {} };
  }
  const end = segmentsEnd(job);
  if (job.state === 'running' && end !== null) {
    return { key: 'state.segments', values: { count: job.segments.length, time: clock(end) } };
  }
  return { key: `state.${job.state}`, values: {} };
}

/**
 * Show the progress of an active job.
 *
 * @param {import('../jobs.js').Job} job
 */
export function showSteps(job) {
  const now = STEP_OF[job.state] ?? -1;
  const end = segmentsEnd(job);
  for (const [number, step] of STEPS.entries()) {
    const element = find(`step-${step}`, HTMLElement);
    element.dataset.reached = number < now ? 'past' : number === now ? 'now' : 'ahead';
    if (number === now) {
      element.setAttribute('aria-current', 'step');
    } else {
      element.removeAttribute('aria-current');
    }
  }
  const bar = find('progress', HTMLProgressElement);
  if (job.state === 'uploading') {
    bar.value = job.uploaded;
  } else if (job.state === 'running' && end !== null && job.duration !== null) {
    bar.value = Math.min(1, end / job.duration);
  } else {
    bar.removeAttribute('value');
  }
  const { key, values } = stateMessage(job);
  setText(find('state', HTMLElement), key, values);
}

/**
 * The end of the last segment received, in seconds; null without segments.
 *
 * @param {import('../jobs.js').Job} job
 */
export function segmentsEnd({ segments }) {
  return segments.at(-1)?.end ?? null;
}
