// Elements that show emotions and their scores: of a file, or of the current window of a live stream.

import { setEmotion } from '../i18n/language.js';
import { make } from './dom.js';
import { emoji, emotionColour, emotionName, emotionOf } from './emotions.js';
import { percent } from './format.js';

/** Shown in place of an emotion where there is no speech. */
const NO_SPEECH = { emoji: '🔇', en: 'no speech', zh: '没有语音' };

/** A box with the strongest emotion: emoji, names in both languages, score. */
export class EmotionBox {
  /** @param {HTMLElement} box with elements of the classes `face`, `in-english`, `in-chinese` and `score` */
  constructor(box) {
    this.box = box;
    const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (box.querySelector(`.${name}`));
    this.face = part('face');
    this.english = part('in-english');
    this.chinese = part('in-chinese');
    this.score = part('score');
  }

  /** @param {{label: string | null, score: number | null}} overall label and score are null without speech */
  show({ label, score }) {
    const emotion = label === null ? null : emotionOf(label);
    this.face.textContent = emotion === null ? NO_SPEECH.emoji : emoji(emotion);
    this.english.textContent = emotion === null ? NO_SPEECH.en : emotionName(emotion, 'en');
    this.chinese.textContent = emotion === null ? NO_SPEECH.zh : emotionName(emotion, 'zh');
    this.score.textContent = score === null ? '' : percent(score);
    this.box.style.setProperty('--emotion', emotion === null ? 'var(--line)' : `var(${emotionColour(emotion)})`);
  }

  /** Show that there is no result yet. */
  clear() {
    this.face.textContent = '…';
    this.english.textContent = this.chinese.textContent = this.score.textContent = '';
    this.box.style.removeProperty('--emotion');
  }
}

/**
 * The emoji of an emotion, hidden from screen readers, which read the name beside it.
 *
 * @param {string | null} emotion null for no speech
 */
export function emojiElement(emotion) {
  const text = emotion === null ? NO_SPEECH.emoji : emoji(emotion);
  return make('span', { class: 'emoji', 'aria-hidden': 'true' }, text);
}

/**
 * The name of an emotion, which follows the language.
 *
 * @param {string} emotion
 * @param {Record<string, unknown>} [attributes]
 */
export function emotionElement(emotion, attributes) {
  const element = make('span', attributes);
  setEmotion(element, emotion);
  return element;
}

/** A list with a bar for each emotion. */
export class ScoreBars {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    /** @type {Map<string, {fill: HTMLElement, value: HTMLElement}>} */
    this.bars = new Map();
  }

  /**
   * Create the bars, in the order of the scores.
   *
   * @param {import('../api/http-api.js').LabelScore[]} scores
   */
  create(scores) {
    this.bars.clear();
    this.list.replaceChildren(...scores.map(({ label }) => this.#bar(emotionOf(label))));
    this.update(scores);
  }

  /**
   * Set the existing bars to new scores.
   *
   * @param {import('../api/http-api.js').LabelScore[]} scores
   */
  update(scores) {
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
    const fill = make('span', { class: 'fill' });
    fill.style.setProperty('background', `var(${emotionColour(emotion)})`);
    const value = make('span', { class: 'value' });
    this.bars.set(emotion, { fill, value });
    return make(
      'li',
      {},
      emojiElement(emotion),
      emotionElement(emotion, { class: 'name' }),
      make('span', { class: 'bar', 'aria-hidden': 'true' }, fill),
      value,
    );
  }
}
