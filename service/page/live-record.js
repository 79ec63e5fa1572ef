// What has come of one live stream, and the files that it becomes.

import { emotionOf } from './emotions.js';
import { roundSeconds } from './format.js';
import { segmentRows } from './segments.js';

/** @typedef {import('./stream.js').WindowEvent} WindowEvent */
/** @typedef {import('./stream.js').UtteranceEvent} UtteranceEvent */
/** @typedef {{start: number, end: number, scores: number[]}} KeptWindow scores in the order of the labels */

/** Grows with the stream; windows are kept small, since hours of them are tens of thousands. */
export class LiveRecord {
  /** @param {import('./stream.js').Ready} ready */
  constructor({ id, model, window, hop }) {
    this.about = { id, model, window, hop };
    this.began = new Date();
    /** @type {string[]} as the service calls them */
    this.labels = [];
    /** @type {KeptWindow[]} */
    this.windows = [];
    /** @type {UtteranceEvent[]} */
    this.utterances = [];
    this.skipped = 0;
    /** @type {import('./stream.js').ResultEvent | null} */
    this.result = null;
  }

  get hop() {
    return this.about.hop;
  }

  /** The emotions of the labels. */
  get emotions() {
    return this.labels.map(emotionOf);
  }

  /** @param {WindowEvent} event */
  addWindow({ start, end, scores, skipped }) {
    if (!this.labels.length) {
      this.labels = scores.map(({ label }) => label);
    }
    this.windows.push({ start, end, scores: scores.map(({ score }) => score) });
    this.skipped += skipped;
  }

  /**
   * The window that is the last to end up to a hop after a moment.
   *
   * @param {number} time seconds
   */
  windowAt(time) {
    return (
      this.windows.find(({ start, end }, index) => time <= end && time >= (index ? end - this.hop : start)) ?? null
    );
  }

  /** Everything, as JSON in the words of the service. */
  json() {
    const windows = this.windows.map(({ start, end, scores }) => {
      const rows = scores.map((score, index) => ({ label: this.labels[index], score }));
      const best = rows.reduce((one, other) => (other.score > one.score ? other : one));
      return { start, end, ...best, scores: rows };
    });
    const utterances = this.utterances.map(({ type, ...rest }) => rest);
    const { type, ...result } = this.result ?? { type: 'result' };
    return JSON.stringify({ ...this.about, ...result, skipped: this.skipped, utterances, windows });
  }

  windowRows() {
    return [
      ['start', 'end', ...this.labels],
      ...this.windows.map(({ start, end, scores }) => [roundSeconds(start), roundSeconds(end), ...scores]),
    ];
  }

  utteranceRows() {
    return segmentRows(this.utterances);
  }
}
