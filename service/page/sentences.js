// Problems as sentences for people.

import { make } from './dom.js';
import { isKey, message, setText } from './language.js';

/**
 * The message for a problem, by its stable code.
 *
 * @param {import('./problem.js').Problem} problem
 * @returns {{key: import('./language.js').Key, values: Record<string, string>}}
 */
export function problemMessage(problem) {
  const key = `problem.${problem.code}`;
  return isKey(key) ? { key, values: {} } : { key: 'problem.other', values: { title: problem.title || problem.code } };
}

/**
 * The sentence for a problem, in the language in use.
 *
 * @param {import('./problem.js').Problem} problem
 */
export function problemSentence(problem) {
  const { key, values } = problemMessage(problem);
  return message(key, values);
}

/**
 * The sentence, when to try again, and what the service said itself, which has the numbers and is in English.
 *
 * @param {import('./problem.js').Problem} problem
 * @returns {HTMLElement}
 */
export function describeProblem(problem) {
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

/**
 * Put a sentence into an element and show it, or hide it where there is none.
 *
 * @param {HTMLElement} element
 * @param {import('./language.js').Key | null} key
 * @param {import('./language.js').Values} [values]
 */
export function showNotice(element, key, values) {
  element.hidden = key === null;
  if (key !== null) {
    setText(element, key, values);
  }
}
