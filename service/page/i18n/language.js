// The texts of the page in both languages. An element stores the key of its text, so that the language can be switched.

import { emotionName } from '../common/emotions.js';
import { readSetting, saveSetting } from '../common/storage.js';
import en from './en.js';
import zh from './zh.js';

/** @typedef {keyof typeof en} Key */
/**
 * A value for a placeholder: text, or the name of an emotion or another message, which depend on the language.
 *
 * @typedef {string | number | {emotion: string} | {key: Key, values: Record<string, string | number>}} Value
 */
/** @typedef {Record<string, Value>} Values */

/** @type {{en: Record<Key, string>, zh: Record<Key, string>}} */
const LANGUAGES = { en, zh };

/** @type {'en' | 'zh'} */
let current = 'en';

/** @type {(() => void)[]} called after each change of the language */
const listeners = [];

/** The current language. */
export function language() {
  return current;
}

/**
 * A message in the current language.
 *
 * @param {Key} key
 * @param {Values} [values] for its placeholders, such as `{name}`
 * @returns {string}
 */
export function message(key, values = {}) {
  return LANGUAGES[current][key].replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    if (typeof value !== 'object') {
      return String(value);
    }
    return 'emotion' in value ? emotionName(value.emotion, current) : message(value.key, value.values);
  });
}

/**
 * Whether there is a message of this key.
 *
 * @param {string} key
 * @returns {key is Key}
 */
export function isKey(key) {
  return Object.hasOwn(en, key);
}

/**
 * Give an element a text that follows the language.
 *
 * @param {Element} element
 * @param {Key} key
 * @param {Values} [values]
 */
export function setText(element, key, values) {
  setMessage(element, 'text', key, values);
}

/**
 * Give an element an accessible name that follows the language.
 *
 * @param {Element} element
 * @param {Key} key
 * @param {Values} [values]
 */
export function setLabel(element, key, values) {
  setMessage(element, 'label', key, values);
}

/**
 * Give an element the name of an emotion as its text, in the current language.
 *
 * @param {Element} element
 * @param {string} emotion
 */
export function setEmotion(element, emotion) {
  element.setAttribute('data-emotion-name', emotion);
  element.textContent = emotionName(emotion, current);
}

/**
 * Call `listener` after each change of the language, for what is drawn and not text of an element.
 *
 * @param {() => void} listener
 */
export function onLanguageChange(listener) {
  listeners.push(listener);
}

/** Use the language chosen earlier, otherwise the browser's. */
export function startLanguage() {
  const wanted = readSetting('language') ?? navigator.language;
  use(wanted.startsWith('zh') ? 'zh' : 'en');
}

/** Switch to the other language, and save the choice. */
export function switchLanguage() {
  use(current === 'en' ? 'zh' : 'en');
  saveSetting('language', current);
}

/** Write the names of emotions again, after the labels of the model are known. */
export function rewriteEmotionNames() {
  for (const element of document.querySelectorAll('[data-emotion-name]')) {
    element.textContent = emotionName(element.getAttribute('data-emotion-name') ?? '', current);
  }
}

/** @param {'en' | 'zh'} chosen */
function use(chosen) {
  current = chosen;
  document.documentElement.lang = chosen === 'zh' ? 'zh-CN' : 'en';
  for (const element of document.querySelectorAll('[data-text], [data-label]')) {
    for (const what of /** @type {const} */ (['text', 'label'])) {
      const key = element.getAttribute(`data-${what}`);
      if (key !== null && isKey(key)) {
        write(element, what, key, JSON.parse(element.getAttribute(`data-${what}-values`) ?? '{}'));
      }
    }
  }
  rewriteEmotionNames();
  for (const listener of listeners) {
    listener();
  }
}

/**
 * @param {Element} element
 * @param {'text' | 'label'} what
 * @param {Key} key
 * @param {Values} [values]
 */
function setMessage(element, what, key, values = {}) {
  element.setAttribute(`data-${what}`, key);
  element.setAttribute(`data-${what}-values`, JSON.stringify(values));
  write(element, what, key, values);
}

/**
 * @param {Element} element
 * @param {'text' | 'label'} what
 * @param {Key} key
 * @param {Values} values
 */
function write(element, what, key, values) {
  const written = message(key, values);
  if (what === 'label') {
    element.setAttribute('aria-label', written);
  } else if (element.textContent !== written) {
    element.textContent = written; // not if it is unchanged: screen readers would read it again
  }
}
