// The segments of a recording as a table. Screen readers read it instead of the lanes.

import { find, make } from '../common/dom.js';
import { emojiElement, emotionElement } from '../common/emotion-scores.js';
import { emotionOf } from '../common/emotions.js';
import { clock, percent } from '../common/format.js';
import { setText } from '../i18n/language.js';

/** More rows make browsers slow; segments.csv has all. */
const MAX_ROWS = 1000;

/** @typedef {import('../api/http-api.js').Segment} Segment */
/** @typedef {{play: (segment: Segment) => void, point: (segment: Segment | null) => void}} Handlers */

/** @type {Map<Segment, HTMLTableRowElement>} */
const rows = new Map();
/** @type {HTMLTableRowElement | null} */
let highlighted = null;

/**
 * Show segments in the order of time. Rows that exist keep their elements.
 *
 * @param {Segment[]} segments
 * @param {Handlers} on
 */
export function showSegments(segments, on) {
  const body = find('segments', HTMLTableSectionElement);
  const shown = segments.slice(0, MAX_ROWS);
  if (!shown.length || !rows.has(shown[0])) {
    body.replaceChildren();
    rows.clear();
  }
  for (const segment of shown.slice(rows.size)) {
    const row = makeRow(segment, on);
    rows.set(segment, row);
    body.append(row);
  }
  const split = segments.some(({ channel }) => channel !== undefined);
  find('segments-table', HTMLElement).classList.toggle('unsplit', !split);
  find('segments-more', HTMLElement).hidden = segments.length <= MAX_ROWS;
  setText(find('segments-more', HTMLElement), 'segments.more', { count: segments.length - MAX_ROWS });
  find('segments-scroll', HTMLElement).hidden = segments.length === 0;
  setText(find('segments-count', HTMLElement), 'segments.count', { count: segments.length });
}

/**
 * Highlight one row.
 *
 * @param {Segment | null} segment
 * @param {boolean} scroll whether to scroll the table to it
 */
export function highlightSegment(segment, scroll) {
  const row = (segment && rows.get(segment)) ?? null;
  if (row === highlighted) {
    return;
  }
  highlighted?.classList.remove('selected');
  row?.classList.add('selected');
  highlighted = row;
  if (row && scroll) {
    const box = find('segments-scroll', HTMLElement);
    const below = row.offsetTop + row.offsetHeight - box.scrollTop - box.clientHeight;
    const above = box.scrollTop + row.offsetHeight - row.offsetTop; // the sticky heading covers the top of the rows
    box.scrollTop += Math.max(below, 0) - Math.max(above, 0);
  }
}

/**
 * @param {Segment} segment
 * @param {Handlers} on
 */
function makeRow(segment, { play, point }) {
  const { start, end, channel, label, score } = segment;
  const emotion = emotionOf(label);
  const time = clock(start, 1);
  const button = make(
    'button',
    { type: 'button', class: 'small', label: 'timeline.play.clock', values: { time } },
    '▶',
  );
  const row = make(
    'tr',
    {},
    make('td', { class: 'number' }, time),
    make('td', { class: 'number' }, clock(end, 1)),
    make('td', { class: 'number channel' }, channel === undefined ? '' : String(channel)),
    make('td', {}, emojiElement(emotion), ' ', emotionElement(emotion)),
    make('td', { class: 'number' }, percent(score)),
    make('td', { class: 'playing' }, button),
  );
  row.addEventListener('click', () => play(segment));
  for (const event of ['pointerenter', 'focusin']) {
    row.addEventListener(event, () => point(segment));
  }
  for (const event of ['pointerleave', 'focusout']) {
    row.addEventListener(event, () => point(null));
  }
  return row;
}
