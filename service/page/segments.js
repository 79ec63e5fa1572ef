// The segments of a recording as a table: what screen readers get of them, and what becomes a CSV.

import { find, make } from './dom.js';
import { emoji, emotionOf } from './emotions.js';
import { clock, percent, roundSeconds } from './format.js';
import { setEmotion, setText } from './language.js';

/** More rows make browsers slow; the CSV has all. */
const MOST_ROWS = 1000;

/** @typedef {import('./api.js').Segment} Segment */
/** @typedef {{play: (segment: Segment) => void, point: (segment: Segment | null) => void}} On */

/** @type {Map<Segment, HTMLTableRowElement>} */
const rows = new Map();
/** @type {HTMLTableRowElement | null} */
let marked = null;

/**
 * Show segments, in the order of time. Those that are shown already stay as they are.
 *
 * @param {Segment[]} segments
 * @param {On} on
 */
export function showSegments(segments, on) {
  const body = find('segments', HTMLTableSectionElement);
  const shown = segments.slice(0, MOST_ROWS);
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
  find('segments-more', HTMLElement).hidden = segments.length <= MOST_ROWS;
  setText(find('segments-more', HTMLElement), 'segments.more', { count: segments.length - MOST_ROWS });
  find('segments-scroll', HTMLElement).hidden = segments.length === 0;
  setText(find('segments-count', HTMLElement), 'segments.count', { count: segments.length });
}

/**
 * Let one row stand out.
 *
 * @param {Segment | null} segment
 * @param {boolean} follow whether to scroll to it within the table
 */
export function markSegment(segment, follow) {
  const row = (segment && rows.get(segment)) ?? null;
  if (row === marked) {
    return;
  }
  marked?.classList.remove('selected');
  row?.classList.add('selected');
  marked = row;
  if (row && follow) {
    const box = find('segments-scroll', HTMLElement);
    const below = row.offsetTop + row.offsetHeight - box.scrollTop - box.clientHeight;
    const above = box.scrollTop + row.offsetHeight - row.offsetTop; // the heading stays on top of the rows
    box.scrollTop += Math.max(below, 0) - Math.max(above, 0);
  }
}

/**
 * Segments as rows of a CSV.
 *
 * @param {Segment[]} segments
 */
export function segmentRows(segments) {
  const labels = segments[0]?.scores.map(({ label }) => label) ?? [];
  return [
    ['start', 'end', 'channel', 'label', 'score', ...labels],
    ...segments.map(({ start, end, channel, label, score, scores }) => [
      roundSeconds(start),
      roundSeconds(end),
      channel ?? '',
      label,
      score,
      ...scores.map((each) => each.score),
    ]),
  ];
}

/**
 * @param {Segment} segment
 * @param {On} on
 */
function makeRow(segment, { play, point }) {
  const { start, end, channel, label, score } = segment;
  const emotion = emotionOf(label);
  const name = make('span');
  setEmotion(name, emotion);
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
    make('td', {}, make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotion)), ' ', name),
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
