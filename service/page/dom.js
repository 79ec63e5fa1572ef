// Finding and making elements.

import { setLabel, setText } from './language.js';

/**
 * The element of the page with this id.
 *
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function find(id, type) {
  const element = document.getElementById(id);
  if (!(element instanceof type)) {
    throw new Error(`the page has no ${type.name} #${id}`);
  }
  return element;
}

/**
 * @typedef {object} Extras
 * @property {import('./language.js').Key} [text]
 * @property {import('./language.js').Key} [label] accessible name
 * @property {import('./language.js').Values} [values] of the text or the label
 * @property {() => void} [click]
 */

/**
 * Make an element. Attributes that are `false` are left out, those that are `true` are empty.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Extras & Record<string, unknown>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  const { text, label, values, click, ...rest } = attributes;
  for (const [name, value] of Object.entries(rest)) {
    if (value !== false) {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  if (text) {
    setText(element, text, values);
  }
  if (label) {
    setLabel(element, label, values);
  }
  if (click) {
    element.addEventListener('click', click);
  }
  element.append(...children);
  return element;
}
