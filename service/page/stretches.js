// The timeline in words: stretches in which one emotion is the strongest. Also what screen readers get of it.

import { make } from './dom.js';
import { emoji, emotionOf } from './emotions.js';
import { percent } from './format.js';
import { setEmotion } from './language.js';

const MOST_ROWS = 200;

/** @typedef {{from: number, to: number, emotion: string, score: number}} EmotionStretch */

/**
 * The stretches of scores over time.
 *
 * @param {import('./api.js').Frames} frames
 * @returns {EmotionStretch[]}
 */
export function stretches({ start, hop, window, labels, scores }) {
  /** @type {(EmotionStretch & {rows: number})[]} */
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
 * @param {EmotionStretch[]} rows
 * @param {((time: number) => void) | null} play null where nothing can be played
 */
export function showStretches(body, rows, play) {
  const shown = rows.slice(0, MOST_ROWS).map(({ from, to, emotion, score }) => {
    const name = make('span');
    setEmotion(name, emotion);
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
      make('td', {}, make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotion)), ' ', name),
      make('td', { class: 'number' }, percent(score)),
      make('td', {}, button),
    );
  });
  body.replaceChildren(...shown);
  if (rows.length > MOST_ROWS) {
    const values = { count: rows.length - MOST_ROWS };
    body.append(make('tr', {}, make('td', { colspan: 5, text: 'timeline.more', values })));
  }
}
