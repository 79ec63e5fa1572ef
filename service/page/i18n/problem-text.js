// Problems as sentences in the language of the page.

import { make } from '../common/dom.js';
import { isKey, message } from './language.js';

/**
 * The message for a problem, selected by its code.
 *
 * @param {import('../api/problem.js').Problem} problem
 * @returns {{key: import('./language.js').Key, values: Record<string, string>}}
 */
export function problemMessage(problem) {
  const key = `problem.${problem.code}`;
  return isKey(key) ? { key, values: {} } : { key: 'problem.other', values: { title: problem.title || problem.code } };
}

/**
 * The message for a problem as text in the current language.
 *
 * @param {import('../api/problem.js').Problem} problem
 */
export function problemSentence(problem) {
  const { key, values } = problemMessage(problem);
  return message(key, values);
}

/**
 * An element with the message, the time of the next try, and the English detail of the service, which has the numbers.
 *
 * @param {import('../api/problem.js').Problem} problem
 * @returns {HTMLElement}
 */
export function problemElement(problem) {
  const box = make('div', { class: 'problem' });
  const { key, values } = problemMessage(problem);
  const sentence = make('p', { class: 'sentence' }, make('span', { text: key, values }));
  if (problem.retryAfter !== null) {
    sentence.append(' ', make('span', { text: 'problem.retry', values: { seconds: Math.ceil(problem.retryAfter) } }));
  }
  box.append(sentence);
  if (problem.detail) {
    const says = make('p', { class: 'detail' });
    says.append(make('span', { text: 'result.says' }), ' ', make('q', { lang: 'en' }, problem.detail));
    box.append(says);
  }
  return box;
}
