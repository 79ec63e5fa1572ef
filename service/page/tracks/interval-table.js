// The timeline as a table: intervals in which one emotion is the strongest. Screen readers read it instead of the chart.

import { make } from '../common/dom.js';
import { emojiElement, emotionElement } from '../common/emotion-scores.js';
import { emotionOf } from '../common/emotions.js';
import { percent } from '../common/format.js';

const MAX_ROWS = 200;

/** @typedef {{from: number, to: number, emotion: string, score: number}} EmotionInterval seconds, and the mean score */

/**
 * The intervals of scores over time.
 *
 * @param {import('../api/http-api.js').Frames} frames
 * @returns {EmotionInterval[]}
 */
export function emotionIntervals({ start, hop, window, labels, scores }) {
  /** @type {(EmotionInterval & {rows: number})[]} */
  const found = [];
  scores.forEach((row, index) => {
    const score = Math.max(...row);
    const emotion = emotionOf(labels[row.indexOf(score)]);
    const last = found.at(-1);
    const middle = start + index * hop + window / 2;
    const to = index === scores.length - 1 ? middle + window / 2 : middle + hop / 2;
    if (last?.emotion === emotion) {
      last.to = to;
      last.score += score;
      last.rows++;
    } else {
      found.push({ from: index ? middle - hop / 2 : start, to, emotion, score, rows: 1 });
    }
  });
  return found.map(({ from, to, emotion, score, rows }) => ({ from, to, emotion, score: score / rows }));
}

/**
 * Fill the table.
 *
 * @param {HTMLTableSectionElement} body
 * @param {EmotionInterval[]} intervals
 * @param {((time: number) => void) | null} play null if the file cannot be played
 */
export function showIntervalTable(body, intervals, play) {
  const rows = intervals.slice(0, MAX_ROWS).map(({ from, to, emotion, score }) => {
    const time = from.toFixed(2);
    const button = make(
      'button',
      {
        type: 'button',
        class: 'small',
        label: 'timeline.play',
        values: { time },
        hidden: play === null,
        click: () => play?.(from),
      },
      '▶',
    );
    return make(
      'tr',
      {},
      make('td', { class: 'number' }, time),
      make('td', { class: 'number' }, to.toFixed(2)),
      make('td', {}, emojiElement(emotion), ' ', emotionElement(emotion)),
      make('td', { class: 'number' }, percent(score)),
      make('td', {}, button),
    );
  });
  body.replaceChildren(...rows);
  if (intervals.length > MAX_ROWS) {
    const values = { count: intervals.length - MAX_ROWS };
    body.append(make('tr', {}, make('td', { colspan: 5, text: 'timeline.more', values })));
  }
}
