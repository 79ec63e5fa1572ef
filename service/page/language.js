// Which words the page uses. An element keeps the key of its text, so that the language can change under it.

import { emotionName } from './emotions.js';
import en from './languages/en.js';
import zh from './languages/zh.js';
import { recall, remember } from './remember.js';

/** @typedef {keyof typeof en} Key */
/** A value in a message: text, or what depends on the language itself, an emotion's name or another message. */
/** @typedef {string | number | {emotion: string} | {key: Key, values: Record<string, string | number>}} Value */
/** @typedef {Record<string, Value>} Values */

/** @type {{en: Record<Key, string>, zh: Record<Key, string>}} */
const LANGUAGES = { en, zh };

/** @type {'en' | 'zh'} */
let current = 'en';

/** What changes with the language beside texts; called after each change. */
/** @type {(() => void)[]} */
const followers = [];

/** The language in use. */
export function language() {
  return current;
}

/**
 * A message in the language in use.
 *
 * @param {Key} key
 * @param {Values} [values] for the `{names}` in it
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
  put(element, 'text', key, values);
}

/**
 * Give an element an accessible name that follows the language.
 *
 * @param {Element} element
 * @param {Key} key
 * @param {Values} [values]
 */
export function setLabel(element, key, values) {
  put(element, 'label', key, values);
}

/**
 * Write the name of an emotion, in the language in use.
 *
 * @param {Element} element
 * @param {string} emotion
 */
export function setEmotion(element, emotion) {
  element.setAttribute('data-emotion-name', emotion);
  element.textContent = emotionName(emotion, current);
}

/**
 * Be told when the language has changed, for what is not text.
 *
 * @param {() => void} follower
 */
export function followLanguage(follower) {
  followers.push(follower);
}

/** Take the language that was chosen before, or else the browser's. */
export function startLanguage() {
  const wanted = recall('language') ?? navigator.language;
  use(wanted.startsWith('zh') ? 'zh' : 'en');
}

/** Change to the other language, and remember it. */
export function switchLanguage() {
  use(current === 'en' ? 'zh' : 'en');
  remember('language', current);
}

/** Write the names of emotions again, after the model's labels have become known. */
export function renameEmotions() {
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
  renameEmotions();
  for (const follower of followers) {
    follower();
  }
}

/**
 * @param {Element} element
 * @param {'text' | 'label'} what
 * @param {Key} key
 * @param {Values} [values]
 */
function put(element, what, key, values = {}) {
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
    element.textContent = written; // only where it differs, so that screen readers say nothing twice
  }
}
