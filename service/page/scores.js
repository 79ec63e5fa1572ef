// The scores of a whole clip: the strongest emotion, and a bar for each.

import { find, make } from './dom.js';
import { colourOf, emoji, emotionName, emotionOf } from './emotions.js';
import { setEmotion } from './language.js';
import { percent } from './segments.js';

/** @param {import('./api.js').Result} result */
export function showScores({ label, score, scores }) {
  const emotion = emotionOf(label);
  find('emotion-face', HTMLElement).textContent = emoji(emotion);
  find('emotion-en', HTMLElement).textContent = emotionName(emotion, 'en');
  find('emotion-zh', HTMLElement).textContent = emotionName(emotion, 'zh');
  find('emotion-score', HTMLElement).textContent = percent(score);
  find('emotion', HTMLElement).style.setProperty('--emotion', `var(${colourOf(emotion)})`);
  const sorted = scores.toSorted((one, other) => other.score - one.score);
  find('scores', HTMLElement).replaceChildren(...sorted.map(bar));
}

/** @param {import('./api.js').LabelScore} score */
function bar({ label, score }) {
  const emotion = emotionOf(label);
  const name = make('span', { class: 'name' });
  setEmotion(name, emotion);
  const fill = make('span', { class: 'fill' });
  fill.style.setProperty('width', `${(100 * score).toFixed(2)}%`);
  fill.style.setProperty('background', `var(${colourOf(emotion)})`);
  return make(
    'li',
    {},
    make('span', { class: 'emoji', 'aria-hidden': 'true' }, emoji(emotion)),
    name,
    make('span', { class: 'bar', 'aria-hidden': 'true' }, fill),
    make('span', { class: 'value' }, percent(score)),
  );
}
