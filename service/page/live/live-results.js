// The results of one live stream, and the content of their downloads.

import { emotionOf } from '../common/emotions.js';
import { roundSeconds } from '../common/format.js';
import { segmentRows } from '../export/csv.js';

/** @typedef {import('./live-stream.js').WindowEvent} WindowEvent */
/** @typedef {import('./live-stream.js').UtteranceEvent} UtteranceEvent */
/** @typedef {{start: number, end: number, scores: number[]}} StoredWindow scores in the order of the labels */

/** Grows with the stream. Windows are stored compactly: some hours have tens of thousands. */
export class LiveResults {
  /** @param {import('./live-stream.js').ReadyEvent} ready */
  constructor({ id, model, window, hop }) {
    this.header = { id, model, window, hop };
    this.startedAt = new Date();
    /** @type {string[]} of the answers */
    this.labels = [];
    /** @type {StoredWindow[]} */
    this.windows = [];
    /** @type {UtteranceEvent[]} */
    this.utterances = [];
    this.skipped = 0;
    /** @type {import('./live-stream.js').ResultEvent | null} */
    this.result = null;
  }

  get hop() {
    return this.header.hop;
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
   * The window shown at a time: the first one that ends there or later, if it is within a hop.
   *
   * @param {number} time seconds
   */
  windowAt(time) {
    return (
      this.windows.find(({ start, end }, index) => time <= end && time >= (index ? end - this.hop : start)) ?? null
    );
  }

  /** Everything as JSON, with the field names of the API. */
  json() {
    const windows = this.windows.map(({ start, end, scores }) => {
      const rows = scores.map((score, index) => ({ label: this.labels[index], score }));
      const best = rows.reduce((one, other) => (other.score > one.score ? other : one));
      return { start, end, ...best, scores: rows };
    });
    const utterances = this.utterances.map(({ type, ...rest }) => rest);
    const { type, ...result } = this.result ?? { type: 'result' };
    return JSON.stringify({ ...this.header, ...result, skipped: this.skipped, utterances, windows });
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
