// The strongest emotion, and a bar for each: of a file, or of the last moments.

import { make } from './dom.js';
import { colourOf, emoji, emotionName, emotionOf } from './emotions.js';
import { percent } from './format.js';
import { setEmotion } from './language.js';

/** What stands in place of a name where nobody speaks. */
const NOBODY = { emoji: '🔇', en: 'no speech', zh: '没有语音' };

/** The strongest emotion in a box: a face, its names in both languages, its score. */
export class EmotionBox {
  /** @param {HTMLElement} box with the elements for them */
  constructor(box) {
    this.box = box;
    const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (box.querySelector(`.${name}`));
    this.face = part('face');
    this.english = part('in-english');
    this.chinese = part('in-chinese');
    this.score = part('score');
  }

  /** @param {{label: string | null, score: number | null}} overall without a label where nobody speaks */
  show({ label, score }) {
    const emotion = label === null ? null : emotionOf(label);
    this.face.textContent = emotion === null ? NOBODY.emoji : emoji(emotion);
    this.english.textContent = emotion === null ? NOBODY.en : emotionName(emotion, 'en');
    this.chinese.textContent = emotion === null ? NOBODY.zh : emotionName(emotion, 'zh');
    this.score.textContent = score === null ? '' : percent(score);
    this.box.style.setProperty('--emotion', emotion === null ? 'var(--line)' : `var(${colourOf(emotion)})`);
  }

  /** Show that nothing is known yet. */
  clear() {
    this.face.textContent = '…';
    this.english.textContent = this.chinese.textContent = this.score.textContent = '';
    this.box.style.removeProperty('--emotion');
  }
}

/** A bar for each emotion. */
export class Bars {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    /** @type {Map<string, {fill: HTMLElement, value: HTMLElement}>} */
    this.bars = new Map();
  }

  /**
   * Make the bars anew, in the order of the scores.
   *
   * @param {import('./api.js').LabelScore[]} scores
   */
  make(scores) {
    this.bars.clear();
    this.list.replaceChildren(...scores.map(({ label }) => this.#bar(emotionOf(label))));
    this.move(scores);
  }

  /**
   * Let the bars that there are grow or shrink.
   *
   * @param {import('./api.js').LabelScore[]} scores
   */
  move(scores) {
    for (const { label, score } of scores) {
      const bar = this.bars.get(emotionOf(label));
      if (bar) {
        bar.fill.style.setProperty('width', `${(100 * score).toFixed(2)}%`);
        bar.value.textContent = percent(score);
      }
    }
  }

  /** @param {string} emotion */
  #bar(emotion) {
    const name = make('span', { class: 'name' });
    setEmotion(name, emotion);
    const fill = make('span', { class: 'fill' });
    fill.style.setProperty('background', `var(${colourOf(emotion)})`);
    const value = make('span', { class: 'value' });
    this.bars.set(emotion, { fill, value });
    return make(
      'li',
      {},
      make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotion)),
      name,
      make('span', { class: 'bar', 'aria-hidden': 'true' }, fill),
      value,
    );
  }
}
