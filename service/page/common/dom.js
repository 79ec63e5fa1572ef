// Find and create elements, show notices, start downloads.

import { setLabel, setText } from '../i18n/language.js';

/**
 * The element with this id.
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
 * @property {import('../i18n/language.js').Key} [text]
 * @property {import('../i18n/language.js').Key} [label] accessible name
 * @property {import('../i18n/language.js').Values} [values] for the placeholders of the text or the label
 * @property {() => void} [click]
 */

/**
 * Create an element. Attributes that are `false` are omitted, those that are `true` are empty.
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

/**
 * Write a message into an element and show it; without a message, hide the element.
 *
 * @param {HTMLElement} element
 * @param {import('../i18n/language.js').Key | null} key
 * @param {import('../i18n/language.js').Values} [values]
 */
export function showNotice(element, key, values) {
  element.hidden = key === null;
  if (key !== null) {
    setText(element, key, values);
  }
}

/**
 * Let the browser save a file.
 *
 * @param {string} name
 * @param {Blob} blob
 */
export function download(name, blob) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
