// Files to take away.

import { encodeCsv } from './csv.js';
import { find } from './dom.js';
import { roundSeconds } from './format.js';
import { setText } from './language.js';
import { encodeNpy, readEmbedding } from './npy.js';
import { drawPicture } from './picture.js';

/**
 * What is on show when a button is pressed.
 *
 * @typedef {object} Shown
 * @property {string} name of the file
 * @property {import('./api.js').Answered} answered
 * @property {import('./api.js').Result} result of the channel on show
 * @property {number | null} channel its number, where channels were split
 */

/** @type {Shown | null} */
let shown = null;

/** Connect the buttons, once. */
export function startTakeaway() {
  const on = (
    /** @type {string} */ id,
    /** @type {(shown: Shown) => Promise<[string, Blob]> | [string, Blob]} */ give,
  ) =>
    find(id, HTMLButtonElement).addEventListener('click', async () => {
      if (shown) {
        const { name, channel } = shown;
        const [suffix, blob] = await give(shown);
        const part = channel === null || suffix === 'result.json' ? '' : `.channel-${channel}`;
        save(`${stem(name)}${part}.${suffix}`, blob);
      }
    });
  on('take-result', ({ answered }) => ['result.json', new Blob([answered.text], { type: 'application/json' })]);
  on('take-embedding', ({ result }) => {
    const { values, shape } = readEmbedding(/** @type {import('./api.js').Embedding} */ (result.embedding));
    return ['embedding.npy', new Blob([encodeNpy(values, shape)])];
  });
  on('take-segments', ({ result }) => {
    const rows = (result.segments ?? []).map(({ embedding }) => readEmbedding(/** @type {any} */ (embedding)).values);
    const values = new Float32Array(rows.length * rows[0].length);
    rows.forEach((row, index) => {
      values.set(row, index * row.length);
    });
    return ['segments.npy', new Blob([encodeNpy(values, [rows.length, rows[0].length])])];
  });
  on('take-frames', ({ result }) => ['frames.csv', csvBlob(frameRows(/** @type {any} */ (result.frames)))]);
  on('take-chart', async (what) => ['chart.png', await drawPicture(what)]);
}

/** @param {Shown} what */
export function offerTakeaway(what) {
  shown = what;
  offer('take-embedding', what.result.embedding !== undefined, 'take.embedding.ask');
  offer('take-frames', what.result.frames !== undefined, 'take.frames.ask');
  const { segments } = what.result;
  find('take-frames-part', HTMLElement).hidden = segments !== undefined;
  find('take-segments-part', HTMLElement).hidden = !segments?.[0]?.embedding;
}

/**
 * @param {(string | number)[][]} rows
 * @returns {Blob}
 */
export function csvBlob(rows) {
  return new Blob(['\ufeff', encodeCsv(rows)], { type: 'text/csv' }); // the mark tells spreadsheets that it is UTF-8
}

/**
 * Let the browser save a file.
 *
 * @param {string} name
 * @param {Blob} blob
 */
export function save(name, blob) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @param {import('./api.js').Frames} frames */
function frameRows({ start, hop, window, labels, scores }) {
  return [
    ['start', 'end', ...labels],
    ...scores.map((row, index) => [
      roundSeconds(start + index * hop),
      roundSeconds(start + index * hop + window),
      ...row,
    ]),
  ];
}

/**
 * @param {string} id of a button
 * @param {boolean} there whether there is something to give
 * @param {import('./language.js').Key} ask what to do about it
 */
function offer(id, there, ask) {
  find(id, HTMLButtonElement).disabled = !there;
  const note = find(`${id}-ask`, HTMLElement);
  note.hidden = there;
  setText(note, ask);
}

/**
 * A file's name without its ending.
 *
 * @param {string} name
 */
export function stem(name) {
  return name.replace(/\.[^.]*$/, '') || name;
}
