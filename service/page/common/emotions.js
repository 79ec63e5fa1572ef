// Name, emoji and colour of each emotion. Its key is the English label, in whatever language an answer is.

/** @typedef {{en: string, zh: string, native: string}} Label */

const EMOJI = /** @type {Record<string, string>} */ ({
  angry: '😠',
  disgusted: '🤢',
  fearful: '😨',
  happy: '😊',
  neutral: '😐',
  other: '🤔',
  sad: '😢',
  surprised: '😲',
  unknown: '❔',
});

/** @type {Map<string, Label>} */
const labels = new Map(
  [
    ['angry', '生气'],
    ['disgusted', '厌恶'],
    ['fearful', '恐惧'],
    ['happy', '开心'],
    ['neutral', '中立'],
    ['other', '其他'],
    ['sad', '难过'],
    ['surprised', '吃惊'],
    ['unknown', '未知'],
  ].map(([en, zh]) => [en, { en, zh, native: `${zh}/${en}` }]),
);

/**
 * Use the labels of the served model.
 *
 * @param {Label[]} modelLabels
 */
export function setModelLabels(modelLabels) {
  for (const label of modelLabels) {
    labels.set(label.en, label);
  }
}

/**
 * The key of a label in any language.
 *
 * @param {string} text
 */
export function emotionOf(text) {
  for (const label of labels.values()) {
    if (label.en === text || label.zh === text || label.native === text) {
      return label.en;
    }
  }
  return text;
}

/**
 * @param {string} emotion
 * @param {'en' | 'zh'} language
 */
export function emotionName(emotion, language) {
  return labels.get(emotion)?.[language] ?? emotion;
}

/** @param {string} emotion */
export function emoji(emotion) {
  return EMOJI[emotion] ?? '🔹';
}

/**
 * The CSS custom property with the colour of an emotion, defined in `style/theme.css`.
 *
 * @param {string} emotion
 */
export function emotionColour(emotion) {
  return `--emotion-${emotion in EMOJI ? emotion : 'unknown'}`;
}

/**
 * Scores by emotion.
 *
 * @param {import('../api/http-api.js').LabelScore[]} scores
 * @returns {Map<string, number>}
 */
export function scoresByEmotion(scores) {
  return new Map(scores.map(({ label, score }) => [emotionOf(label), score]));
}

/**
 * The highest score first.
 *
 * @param {import('../api/http-api.js').LabelScore[]} scores
 */
export function sortedByScore(scores) {
  return scores.toSorted((one, other) => other.score - one.score);
}
