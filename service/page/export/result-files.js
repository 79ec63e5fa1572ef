// The downloads of a result: JSON, embeddings, scores over time, chart.

import { download, find } from '../common/dom.js';
import { fileStem } from '../common/format.js';
import { setText } from '../i18n/language.js';
import { drawChartImage } from './chart-image.js';
import { csvBlob, frameRows } from './csv.js';
import { encodeNpy, readEmbedding } from './npy.js';

/**
 * The result that the buttons download.
 *
 * @typedef {object} ShownResult
 * @property {string} name of the file
 * @property {import('../api/http-api.js').Answered} answered
 * @property {import('../api/http-api.js').Result} result of the selected channel
 * @property {number | null} channel its number, where channels were split
 */

/** @type {ShownResult | null} */
let shown = null;

/** Connect the buttons, once. */
export function startResultFiles() {
  const connect = (
    /** @type {string} */ id,
    /** @type {(shown: ShownResult) => Promise<[string, Blob]> | [string, Blob]} */ createFile,
  ) =>
    find(id, HTMLButtonElement).addEventListener('click', async () => {
      if (shown) {
        const { name, channel } = shown;
        const [suffix, blob] = await createFile(shown);
        const part = channel === null || suffix === 'result.json' ? '' : `.channel-${channel}`;
        download(`${fileStem(name)}${part}.${suffix}`, blob);
      }
    });
  connect('export-result', ({ answered }) => ['result.json', new Blob([answered.text], { type: 'application/json' })]);
  connect('export-embedding', ({ result }) => {
    const { values, shape } = readEmbedding(/** @type {import('../api/http-api.js').Embedding} */ (result.embedding));
    return ['embedding.npy', new Blob([encodeNpy(values, shape)])];
  });
  connect('export-segments', ({ result }) => {
    const rows = (result.segments ?? []).map(({ embedding }) => readEmbedding(/** @type {any} */ (embedding)).values);
    const values = new Float32Array(rows.length * rows[0].length);
    rows.forEach((row, index) => {
      values.set(row, index * row.length);
    });
    return ['segments.npy', new Blob([encodeNpy(values, [rows.length, rows[0].length])])];
  });
  connect('export-frames', ({ result }) => ['frames.csv', csvBlob(frameRows(/** @type {any} */ (result.frames)))]);
  connect('export-chart', async (what) => ['chart.png', await drawChartImage(what)]);
}

/** @param {ShownResult} what */
export function showResultFiles(what) {
  shown = what;
  enable('export-embedding', what.result.embedding !== undefined, 'export.embedding.hint');
  enable('export-frames', what.result.frames !== undefined, 'export.frames.hint');
  const { segments } = what.result;
  find('export-frames-part', HTMLElement).hidden = segments !== undefined;
  find('export-segments-part', HTMLElement).hidden = !segments?.[0]?.embedding;
}

/**
 * Enable a button, or disable it and show a hint.
 *
 * @param {string} id of the button
 * @param {boolean} available whether the result has the data of the file
 * @param {import('../i18n/language.js').Key} hint how to get the data
 */
function enable(id, available, hint) {
  find(id, HTMLButtonElement).disabled = !available;
  const element = find(`${id}-hint`, HTMLElement);
  element.hidden = available;
  setText(element, hint);
}
